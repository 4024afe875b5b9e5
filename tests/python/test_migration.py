"""docs/migration.md: a Channels project and a gateway beside each other, and the way back."""

import asyncio
import json
import re
from types import SimpleNamespace

import jwt
import pytest
import redis as redis_client
import websockets
from brokers import Redis
from client import DEADLINE, connect, run
from conftest import CONFIG, Gateway, make_database, wait_for
from django.conf import settings
from django.test import RequestFactory
from fleet import Django
from pages import ROOT
from story import Gateways, jobs, post

PAGE = (ROOT / "docs/migration.md").read_text()
LAYER = """
[jobs]
single_gateway = true

[layer]
kind = "redis"
url = "{url}"
dialect = "channels_redis.core"
{more}
"""
SECRET = "a secret of the tests that is long enough"


@pytest.fixture
def redis(tmp_path):
    server = Redis(tmp_path / "redis")
    yield server
    server.kill()


@pytest.fixture
def django(tmp_path, redis):
    """The project in tests/django under daphne, with its consumers."""
    project = Django(tmp_path, LAYER_HOSTS=redis.url)
    yield project
    project.kill()


@pytest.fixture
def start(tmp_path, redis):
    gateways = Gateways(tmp_path, LAYER.replace("{url}", redis.url))
    yield gateways
    gateways.end()


def test_pages_of_both_are_in_the_same_group(django, start):
    gateway = start()

    async def story():
        async with channels(django, "room") as old, connect(gateway) as new:
            await new.subscribe("room")
            message = {"type": "chat.message", "text": "by Django"}
            assert (await asyncio.to_thread(django.post, "/send/room/", json=message)).status_code == 202
            assert await frame(old) == message and await new.message("chat.message") == message
            message = {"type": "chat.message", "text": "by a page of the gateway"}
            await new.send(type="group_send", id=2, group="room", message=message)
            assert await frame(old) == message
            message = {"type": "chat.message", "text": "by a page of Channels"}
            await old.send(json.dumps(message))
            assert await frame(old) == message
            texts = await texts_of(new, 2)
            assert sorted(texts) == ["by a page of Channels", "by a page of the gateway"]

    run(story())


def test_work_moves_to_the_gateway_and_back(django, start, redis):
    async def asked(gateway):
        """What the page of Channels gets of a view that asks."""
        async with channels(django, "my_group") as old:
            assert (await asyncio.to_thread(django.get, "/reports/7/")).status_code == 202
            seen = [await frame(old)]
            while gateway and seen[-1]["type"] != "job.result":
                seen.append(await frame(old))
            return [message["type"] for message in seen]

    assert asyncio.run(asked(None)) == ["execute_query"]
    gateway = start()
    # Consumers see the message, too: they are members, as they always were. Beside it they see what becomes of the work.
    types = asyncio.run(asked(gateway))
    assert sorted(types) == ["execute_query", "job.result", "job.started"], types
    assert jobs(gateway) == 1
    assert gateway.stop() == 0
    assert asyncio.run(asked(None)) == ["execute_query"]


def test_a_reply_to_another_group_keeps_the_events_from_consumers(django, start):
    gateway = start()

    async def story():
        async with channels(django, "my_group") as old, connect(gateway) as new:
            await new.subscribe("my_group.live")
            work = {"type": "execute_query", "queryset_id": 7, "reply_to": "my_group.live"}
            await asyncio.to_thread(django.post, "/send/my_group/", json=work)
            assert (await new.message("job.result"))["result"]["row_count"] == 2
            last = {"type": "chat.message", "text": "last"}
            await asyncio.to_thread(django.post, "/send/my_group/", json=last)
            assert [await frame(old), await frame(old)] == [work, last]

    run(story())


def test_a_type_without_a_method_ends_a_socket_of_channels_and_none_of_ours(django, start):
    gateway = start()

    async def story():
        async with channels(django, "room") as old, connect(gateway) as new:
            await new.subscribe("room")
            await asyncio.to_thread(post, gateway, "/v1/groups/room/send", {"type": "nobody.knows"}, 202)
            with pytest.raises(websockets.ConnectionClosed):
                await asyncio.wait_for(old.recv(), DEADLINE)
            assert await new.message("nobody.knows") == {"type": "nobody.knows"}
            await new.send(type="ping", id=1)
            assert (await new.expect("pong"))["id"] == 1

    run(story())


def test_what_a_gateway_leaves_behind_harms_nobody(django, start, redis):
    gateway = start()

    async def story():
        async with connect(gateway) as new:
            await new.subscribe("room")
            await new.subscribe("my_group")
            assert await asyncio.to_thread(gateway.stop) == 0
        async with channels(django, "room") as old:
            for n in range(3):
                message = {"type": "chat.message", "n": n}
                await asyncio.to_thread(django.post, "/send/room/", json=message)
                assert await frame(old) == message

    run(story())
    with redis_client.Redis.from_url(redis.url) as client:
        # It is a member for as long as any other that is not added again; what is sent to it goes after `expiry`.
        for group in ("room", "my_group"):
            wait_for("Django's own page to leave", lambda group=group: client.zcard(f"asgi:group:{group}") == 1)
            assert 86_000 < client.ttl(f"asgi:group:{group}") <= 86_400
        (unread,) = (key for key in client.keys("asgigroupcast*") if b"inflight" not in key)
        assert client.zcard(unread) == 3 and 0 < client.ttl(unread) <= 60


def test_the_token_of_the_page_opens_the_groups_that_it_names(tmp_path, monkeypatch):
    (block,) = re.findall(r"^```python tokens.py\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    settings.GROUPCAST_SECRET = SECRET
    view = {}
    exec(block, view)
    request = RequestFactory().get("/token/")
    request.user = SimpleNamespace(is_authenticated=True, pk=7)
    token = json.loads(view["token"](request).content)["token"]
    assert jwt.decode(token, SECRET, algorithms=["HS256"])["sub"] == "7"

    monkeypatch.setenv("APP_JWT_SECRET", SECRET)
    monkeypatch.setenv("APP_API_KEYS", "k" * 32)
    (auth,) = re.findall(r"^```toml\n(\[auth\].*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    (tmp_path / "groupcast.toml").write_text(CONFIG + auth)
    make_database(tmp_path / "shop.db")
    gateway = Gateway(tmp_path)

    async def story():
        protocols = ["groupcast.v1", f"groupcast.token.{token}"]
        async with websockets.connect(gateway.ws, subprotocols=protocols, proxy=None) as socket:
            assert (await frame(socket))["user"] == "7"
            for group, answer in (("user.7", "subscribed"), ("news", "subscribed"), ("user.8", "error")):
                await socket.send(json.dumps({"type": "subscribe", "group": group}))
                assert (await frame(socket))["type"] == answer, group

    try:
        run(story())
    finally:
        gateway.kill()
        gateway.reader.join(DEADLINE)


def channels(django: Django, group: str):
    """A page of the project's own consumer, which has been welcomed."""
    return Welcomed(websockets.connect(f"{django.ws}/ws/{group}/", proxy=None))


class Welcomed:
    def __init__(self, connecting):
        self.connecting = connecting

    async def __aenter__(self):
        socket = await self.connecting.__aenter__()
        assert (await frame(socket))["type"] == "welcome"
        return socket

    async def __aexit__(self, *how):
        await self.connecting.__aexit__(*how)


async def frame(socket) -> dict:
    return json.loads(await asyncio.wait_for(socket.recv(), DEADLINE))


async def texts_of(client, count: int) -> list[str]:
    """Of messages, passing over answers to commands."""
    texts = []
    while len(texts) < count:
        said = await client.frame()
        if said["type"] == "message":
            texts.append(said["message"]["text"])
    return texts
