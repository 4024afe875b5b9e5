"""Links of our Markdown lead somewhere: to a file that is kept, and to a heading that it has; and what is TOML in it can be read."""

import re
import subprocess
import tomllib
from pathlib import Path
from urllib.parse import unquote

import pytest
from pages import ROOT

KEPT = subprocess.run(
    ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True, text=True
).stdout.split("\n")
PAGES = sorted(name for name in KEPT if name.endswith(".md"))
CODE = re.compile(r"^ *(`{3,}|~{3,}).*?^ *\1$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(<?([^)\s>]+)>?\)|^\[[^]]+\]: (\S+)$", re.MULTILINE)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings_that_exist(page):
    assert (broken := list(broken_links(page, (ROOT / page).read_text()))) == [], broken


@pytest.mark.parametrize("page", PAGES)
def test_what_is_toml_can_be_read(page):
    for block in re.findall(r"^```toml[^\n]*\n(.*?)^```$", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL):
        tomllib.loads(block)


def test_the_index_names_every_document():
    index = (ROOT / "docs/README.md").read_text()
    for path in sorted((ROOT / "docs").iterdir()):
        assert path.name == "README.md" or f"({path.name})" in index, path.name


def test_what_is_broken_is_found():
    text = "# One\n[a](README.md) [b](#one) [c](#two) [d](missing.md)\n`[e](missing)`\n```\n[f](missing)\n```\n[g](LICENSE-MIT#x)\n[h](docs/)\n"
    text += '<a href="missing.html">i</a> [j](https://example.org/missing)\n# One\n[k](#one-1)\n'
    assert list(broken_links("page.md", text)) == ["#two", "missing.md", "LICENSE-MIT#x"]


def test_headings_are_found_as_they_are_linked_to():
    text = "# Rust: `a_b`, *c* & [d](e)!\n## Several gateways, and Django\n## Äther-1\n```sh\n# no heading\n```\n### Same\n### Same\n"
    assert anchors(text) == {"rust-a_b-c--d", "several-gateways-and-django", "äther-1", "same", "same-1"}


def broken_links(page: str, text: str):
    prose = re.sub(r"`[^`\n]*`", "", CODE.sub("", text))
    for match in LINK.finditer(prose):
        link = match.group(1) or match.group(2)
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / unquote(path) if path else ROOT / page
        if not is_kept(target) and path:
            yield link
        elif anchor and unquote(anchor) not in anchors(text if not path else read(target)):
            yield link


def is_kept(target: Path) -> bool:
    try:
        name = target.resolve().relative_to(ROOT).as_posix()
    except ValueError:
        return False
    return name in KEPT and target.is_file() or any(kept.startswith(f"{name}/") for kept in KEPT)


def read(target: Path) -> str:
    return target.read_text() if target.suffix == ".md" else ""


def anchors(text: str) -> set[str]:
    """Of the headings, as GitHub makes them."""
    found, seen = set(), {}
    for heading in re.findall(r"^#{1,6} (.+)$", CODE.sub("", text), re.MULTILINE):
        heading = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        again = seen.get(slug, -1) + 1
        seen[slug] = again
        found.add(f"{slug}-{again}" if again else slug)
    return found
