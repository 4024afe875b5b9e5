"""docs/configuration.md is what the types and the program say."""

from conftest import binary
from limits import printed
from reference import PAGE, render


def test_the_reference_of_the_configuration_is_not_stale():
    assert PAGE.read_text() == render(binary()), "it is stale; tests/python/deploy/reference.py writes it"


def test_every_setting_that_the_program_prints_is_in_it():
    page = PAGE.read_text()
    for section, settings in printed().items():
        if isinstance(settings, dict) and settings:
            assert f"## `[{section}]`" in page
            for key in settings:
                assert f"| `{key}` |" in page, f"{section}.{key}"
