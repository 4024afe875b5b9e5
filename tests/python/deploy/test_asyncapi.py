"""docs/asyncapi.yaml and docs/protocol.md are what the protocol's crate says and what a gateway does."""

import asyncio
import json
import re

import httpx
import jsonschema
import pytest
import websockets
import yaml
from client import DEADLINE, run
from conftest import CONFIG, Gateway, make_database
from limits import limits
from servers import ROOT, post

OFFICIAL = ROOT / "tests/browser/node_modules/@asyncapi/specs/schemas/3.0.0.json"
DESCRIPTION = yaml.safe_load((ROOT / "docs/asyncapi.yaml").read_text())
PAGE = (ROOT / "docs/protocol.md").read_text()
CRATE = ROOT / "protocol/src"
VECTORS = ROOT / "protocol/vectors"
# What no schema of a JSON value can see.
BEYOND_SCHEMAS = {"id_long", "type_twice", "id_exponent"}


def test_the_description_is_one_of_asyncapi():
    schema = json.loads(OFFICIAL.read_text())
    jsonschema.validators.validator_for(schema)(schema).validate(DESCRIPTION)
    for reference in references(DESCRIPTION):
        resolve(reference)


def test_it_has_the_frames_of_the_crate():
    client, server = (CRATE / "frame/client.rs").read_text(), (CRATE / "frame/server/encode.rs").read_text()
    commands = set(re.search(r'const KNOWN: &str = "(.*)";', client).group(1).split(", "))
    frames = set(re.findall(r'(?:push|answer|Object::new)\("(\w+)"', server)) | {"message"}
    assert types("receive") == commands, "docs/asyncapi.yaml and protocol/src/frame/client.rs differ"
    assert types("send") == frames, "docs/asyncapi.yaml and protocol/src/frame/server/encode.rs differ"
    assert set(column("command")) == commands
    assert set(column("push")) | {row[2].split("`")[1] for row in table("command")} | {"welcome", "error"} == frames


def test_it_has_the_codes_of_the_crate():
    source = (CRATE / "error.rs").read_text()
    codes = dict(re.findall(r'^    \w+ = "(\w+)", (true|false);$', source, re.MULTILINE))
    assert DESCRIPTION["components"]["schemas"]["code"]["enum"] == list(codes)
    chapter = PAGE[PAGE.index("## Errors") : PAGE.index("## The end")]
    said = re.findall(r"`(\w+)`( \*)?(?: \||[,.])", chapter[chapter.index("| code |") :])
    said = {code: bool(star) for code, star in said if code in codes}
    assert said == {code: retriable == "true" for code, retriable in codes.items()}, "the table of docs/protocol.md differs"


def test_it_has_the_close_codes_of_the_crate():
    source = (CRATE / "close.rs").read_text()
    numbers = dict(re.findall(r"Self::(\w+) => (\d+)", source))
    returning = re.search(r"fn should_reconnect.*?match self \{(.*?)=> true", source, re.DOTALL).group(1)
    returning = {numbers[name] for name in re.findall(r"Self::(\w+)", returning)}
    rows = {row[0]: row[2] for row in table("close code")}
    assert set(rows) == {*numbers.values(), "none"}
    come_back = {code for code, does in rows.items() if does.startswith("comes back") and "new token" not in does}
    assert come_back == returning | {"none"}


def test_its_limits_are_the_gateways():
    rows = {match.group(1): row[1] for row in table("what") for match in re.finditer(r"\(`(\w+)`\)", row[1])}
    assert len(rows) == 9
    defaults = limits()
    for key, said in rows.items():
        number = re.search(rf"(\d+)(?: (KiB|MiB|s\b))?[^(]*\(`{key}`\)", said)
        unit = {"KiB": 1024, "MiB": 1024**2}.get(number.group(2), 1)
        value = defaults[key]
        value = value if isinstance(value, (int, float)) else size(value)
        assert int(number.group(1)) * unit == value, key


@pytest.mark.parametrize("path", sorted(VECTORS.glob("*.json")), ids=lambda path: path.stem)
def test_frames_of_the_vectors_are_as_described(path):
    vector = json.loads(path.read_text())
    frame = vector.get("wire") or json.loads(vector["text"])
    assert names(frame, vector["direction"] == "client"), frame


@pytest.mark.parametrize("path", sorted((VECTORS / "refused").glob("*.json")), ids=lambda path: path.stem)
def test_frames_that_are_refused_are_not_described(path):
    vector = json.loads(path.read_text())
    if path.stem in BEYOND_SCHEMAS:
        return
    try:
        frame = vector["wire"] if "wire" in vector else json.loads(vector["text"])
    except ValueError:
        return
    assert not isinstance(frame, dict) or not names(frame, client=True), frame


def test_examples_on_the_page_are_frames():
    lines = [line for block in re.findall(r"^```json\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL) for line in block.splitlines()]
    lines += re.findall(r"^data: (.*)$", PAGE, re.MULTILINE)
    seen = [name for line in lines for name in (names(json.loads(line), False) or names(json.loads(line), True) or pytest.fail(line))]
    assert set(seen) == set(DESCRIPTION["channels"]["websocket"]["messages"]), "a frame has no example"


def test_a_gateway_speaks_as_described(tmp_path):
    (tmp_path / "groupcast.toml").write_text(CONFIG + MORE)
    make_database(tmp_path / "shop.db")
    gateway = Gateway(tmp_path)
    seen = set()
    try:
        run(session(gateway, seen))
    finally:
        if gateway.process.poll() is None:
            gateway.kill()
        gateway.reader.join(DEADLINE)
    assert "panicked at" not in "".join(gateway.lines)
    # A token needs a gateway of its own; `authenticate` is refused here, and the vectors have its answer.
    assert set(DESCRIPTION["channels"]["websocket"]["messages"]) - seen == {"authenticated"}


MORE = """
[limits]
log_bytes = "256KiB"

[[group]]
name = "room.*"
history = { messages = 1000 }
presence = true

[[query]]
id = 20
name = "followed"
source = "shop"
sql = "select name, sold from goods"
tags = ["goods"]
"""


class Described:
    """A socket whose every frame, in and out, has to be described."""

    def __init__(self, socket, seen: set):
        self.socket, self.seen = socket, seen

    async def next(self) -> dict:
        return self.take(await asyncio.wait_for(self.socket.recv(), DEADLINE))

    def take(self, text: str) -> dict:
        frame = json.loads(text)
        found = names(frame, client=False)
        assert found, f"not described: {text[:500]}"
        self.seen.update(found)
        return frame

    async def ask(self, kind: str, **fields) -> dict:
        """The answer to a command; pushes that come before it are looked at, too."""
        frame = {"type": kind, "id": f"{kind}-{len(self.seen)}"} | fields
        found = names(frame, client=True)
        assert found, frame
        self.seen.update(found)
        await self.socket.send(json.dumps(frame))
        return await self.until(lambda answer: answer.get("id") == frame["id"])

    async def until(self, wanted) -> dict:
        while not wanted(frame := await self.next()):
            pass
        return frame


async def session(gateway, seen: set) -> None:
    async with opened(gateway, "?group=room.1") as socket, opened(gateway) as other:
        one, two = Described(socket, seen), Described(other, seen)
        assert (await one.next())["type"] == "welcome"
        place = await one.next()
        assert (place["type"], place["group"]) == ("subscribed", "room.1")
        assert (await two.ask("subscribe", group="room.1"))["type"] == "subscribed"
        await one.until(lambda frame: frame["type"] == "joined")
        message = {"type": "chat", "text": "hello"}
        sent = await two.ask("group_send", group="room.1", message=message, idempotency_key="k")
        assert sent["type"] == "accepted" and sent["offset"] == place["offset"] + 1
        await one.until(lambda frame: frame["type"] == "message" and frame["offset"] == sent["offset"])
        assert len((await one.ask("members", group="room.1"))["members"]) == 2
        after = {"epoch": place["epoch"], "offset": place["offset"]}
        assert (await one.ask("history", group="room.1", after=after))["messages"][0]["message"] == message
        assert (await two.ask("unsubscribe", group="room.1"))["type"] == "unsubscribed"
        await one.until(lambda frame: frame["type"] == "left")
        for wrong in ({"epoch": "other", "offset": 1}, after | {"offset": 99}, after):
            assert (await two.ask("subscribe", group="room.1", after=wrong))["recovered"] is (wrong == after)
            await two.ask("unsubscribe", group="room.1")
        asked = await one.ask("query", name="top_sellers", params={})
        await one.until(lambda frame: frame.get("message", {}).get("type") == "job.result")
        assert (await one.ask("cancel", job=asked["jobs"][0]["id"]))["code"] == "finished"
        await two.ask("subscribe", group="my_group")
        later = await one.ask("group_send", group="my_group", message={"type": "execute_query", "queryset_id": 7, "delay_ms": 60_000})
        assert (await one.ask("cancel", job=later["jobs"][0]["id"]))["type"] == "cancelled"
        await two.until(lambda frame: frame.get("message", {}).get("type") == "job.cancelled")
        assert "query" in await one.ask("subscribe", query="followed")
        await one.until(lambda frame: frame.get("message", {}).get("type") == "query.snapshot")
        assert (await one.ask("authenticate", token="x.y.z"))["type"] in ("error", "authenticated")
        assert (await one.ask("ping"))["type"] == "pong"
        await fall_behind(gateway, seen)
        stopped = asyncio.create_task(asyncio.to_thread(gateway.stop))
        await one.until(lambda frame: frame["type"] == "closing")
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await one.until(lambda _: False)
        assert closed.value.rcvd.code == 1012 and await stopped == 0


async def fall_behind(gateway, seen: set) -> None:
    """Reads nothing while more is sent than buffers and log hold: told as a gap."""
    async with opened(gateway, "?group=crowd") as socket:
        slow = Described(socket, seen)
        await slow.until(lambda frame: frame["type"] == "subscribed")
        socket.transport.pause_reading()
        body = {"type": "large", "text": "x" * 900_000}
        for _ in range(20):
            sent = await asyncio.to_thread(post, f"{gateway.url}/v1/groups/crowd/send", json=body)
            assert sent.status_code == 202, sent.text
        socket.transport.resume_reading()
        gap = await slow.until(lambda frame: frame["type"] == "gap")
        assert gap["reason"] == "slow_consumer" and gap["missed"] > 0


def test_an_event_stream_speaks_as_described(gateway):
    url = f"{gateway.url}/v1/events?group=news"
    seen = []
    with httpx.Client(trust_env=False, timeout=DEADLINE) as client, client.stream("GET", url) as stream:
        name = None
        for line in stream.iter_lines():
            field, _, value = line.partition(": ")
            name = value if field == "event" else name if line else None
            if field != "data":
                continue
            frame = json.loads(value)
            assert set(names(frame, client=False)) & set(DESCRIPTION["channels"]["events"]["messages"]), frame
            assert (name == "subscribed") == (frame["type"] == "subscribed"), frame
            seen.append(frame["type"])
            if frame["type"] == "message":
                break
            assert post(f"{gateway.url}/v1/groups/news/send", json={"type": "news"}).status_code == 202
    assert seen == ["subscribed", "message"]


def opened(gateway, query: str = ""):
    return websockets.connect(gateway.ws + query, subprotocols=["groupcast.v1"], proxy=None, max_size=None, max_queue=1)


def names(frame: dict, client: bool) -> list[str]:
    """Which messages of the description it is, from a client or from the gateway. The gateway sends nothing that is not described."""
    found = []
    for name, message in DESCRIPTION["components"]["messages"].items():
        operations = received() if client else said()
        if name in operations and message["name"] == frame.get("type") and validator(name).is_valid(frame):
            properties = DESCRIPTION["components"]["schemas"][name]["properties"]
            if client or frame.keys() <= properties.keys():
                found.append(name)
    assert len(found) < 2, (found, frame)
    return found


def validator(name: str):
    schema = {"$ref": f"#/components/schemas/{name}", "components": DESCRIPTION["components"]}
    return jsonschema.Draft7Validator(schema)


def received() -> set[str]:
    return {last(message) for each in DESCRIPTION["operations"].values() if each["action"] == "receive" for message in each["messages"]}


def said() -> set[str]:
    operations = DESCRIPTION["operations"].values()
    replies = {last(message) for each in operations for message in each.get("reply", {}).get("messages", [])}
    return replies | {last(message) for each in operations if each["action"] == "send" for message in each["messages"]}


def types(action: str) -> set[str]:
    every = received() if action == "receive" else said()
    return {DESCRIPTION["components"]["messages"][name]["name"] for name in every}


def last(reference: dict) -> str:
    return reference["$ref"].rsplit("/", 1)[-1]


def references(value):
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from references(inner)


def resolve(reference: str):
    found = DESCRIPTION
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return found


def table(first: str) -> list[list[str]]:
    """The rows of the table whose first column is called so."""
    (body,) = re.findall(rf"^\| {re.escape(first)} \|.*\n\|[-|]+\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    return [[cell.strip() for cell in row.strip("|\n").split(" | ")] for row in body.splitlines()]


def column(first: str) -> list[str]:
    return [name for row in table(first) for name in re.findall(r"`(\w+)`", row[0])]


def size(text: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(\w*)", text).groups()
    return int(number) * {"": 1, "KiB": 1024, "MiB": 1024**2}[unit]


