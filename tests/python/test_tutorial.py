"""docs/tutorial.md, from the empty folder to two gateways: real Django, real brokers, real pages."""

import re
import sys
from pathlib import Path

import pytest
from pages import ROOT, Walk, heading

sys.path.insert(0, str(Path(__file__).parent / "deploy"))

from servers import Postgres  # noqa: E402

PORTS = [6379, 8000, 8001, 8002]
TEXT = (ROOT / "docs/tutorial.md").read_text()


def test_the_tutorial_is_true(tmp_path):
    postgres = Postgres()
    try:
        with walk(tmp_path, {"JOBS_URL": postgres.url}) as reader:
            reader.go(until="Other channel layers")
    finally:
        postgres.end()


@pytest.mark.parametrize(("layer", "until"), [("channels_redis.pubsub", "While the gateway is away"), ("channels_nats", "5. Rows that change")])
def test_it_begins_the_same_with_other_channel_layers(tmp_path, layer, until):
    others = blocks(TEXT[heading(TEXT, layer) :].split("\n### ")[0])
    usual = {kind: body for kind, body in blocks(TEXT).items() if kind in others}
    used = set()

    def choose(text: str) -> str:
        for kind, other in others.items():
            if text.strip() == usual[kind]:
                used.add(kind)
                return other + "\n"
        return text

    with walk(tmp_path, choose=choose) as reader:
        reader.go(until=until)
    assert used == set(others)


def blocks(text: str) -> dict[str, str]:
    """The first broker, the first CHANNEL_LAYERS and the first [layer] of a text."""
    kinds = {"broker": r"^((?:redis|nats)-server .*)$", "django": r"^(CHANNEL_LAYERS = .*?^})$", "gateway": r"^(\[layer\].*?)\n```$"}
    found = {kind: re.search(pattern, text, re.MULTILINE | re.DOTALL if kind != "broker" else re.MULTILINE) for kind, pattern in kinds.items()}
    return {kind: match.group(1) for kind, match in found.items() if match}


def walk(folder: Path, env: dict | None = None, choose=lambda text: text) -> Walk:
    reader = Walk("tutorial.md", folder, PORTS, env, choose)
    # The gateway's own port is the default of the reader's programs.
    reader.env["GROUPCAST_URL"] = f"http://127.0.0.1:{reader.ports['8000']}"
    return reader
