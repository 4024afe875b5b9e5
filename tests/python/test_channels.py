"""Django Channels and gateways in the same groups: `channels_redis.core`, unchanged, on one Redis."""

import asyncio
import subprocess
import time
from pathlib import Path

import pytest
import redis as redis_client
from brokers import Redis
from channels_redis.core import RedisChannelLayer
from client import connect, run
from conftest import wait_for
from django.test import RequestFactory
from story import Gateways, jobs, metric, post, start_query, states, use_layer

LAYER = """
[jobs]
single_gateway = true

[layer]
kind = "redis"
url = "{url}"
dialect = "channels_redis.core"
{more}
"""


@pytest.fixture
def redis(tmp_path):
    server = Redis(tmp_path / "redis")
    yield server
    server.kill()


@pytest.fixture
def start(tmp_path, redis):
    """Starts gateways on the Redis."""
    gateways = Gateways(tmp_path, LAYER.replace("{url}", redis.url))
    yield gateways
    gateways.end()


def layer_of(redis, **options) -> RedisChannelLayer:
    return RedisChannelLayer(hosts=[redis.url], **options)


def test_the_view_runs_its_query_once_and_the_sockets_have_the_rows(redis, start):
    first, second = start(), start()
    use_layer("channels_redis.core.RedisChannelLayer", hosts=[redis.url])
    member(redis, "my_group")

    async def story():
        async with connect(first) as one, connect(second) as two:
            await one.subscribe("my_group")
            await two.subscribe("my_group")
            request = RequestFactory().post("/start/7")
            answer = await asyncio.to_thread(start_query, request, 7)
            assert answer.status_code == 202
            for reader in (one, two):
                result = await reader.message("job.result")
                assert result["result"]["rows"] == [["coffee", 42], ["tea", 30]]
                assert result["attempt"] == 1

    run(story())
    assert jobs(first) + jobs(second) == 1


def test_what_django_sends_reaches_the_sockets_of_all_gateways_in_order(redis, start):
    gateways = [start(), start()]

    async def story():
        layer = layer_of(redis)
        async with connect(gateways[0]) as one, connect(gateways[1]) as two:
            for reader in (one, two):
                await reader.subscribe("room")
            for n in range(60):
                await layer.group_send("room", {"type": "chat.message", "n": n, "text": "Grüße 🦀"})
            for reader in (one, two):
                for n in range(60):
                    assert await reader.message("chat.message") == {"type": "chat.message", "n": n, "text": "Grüße 🦀"}
        await layer.close_pools()

    run(story())


def test_what_a_gateway_is_sent_reaches_django(redis, start):
    gateway = start()

    async def story():
        layer = layer_of(redis)
        channels = [await layer.new_channel() for _ in range(2)]
        for channel in channels:
            await layer.group_add("room", channel)
        async with connect(gateway) as reader:
            await reader.subscribe("room")
            message = {"type": "chat.message", "text": "hi", "n": -1, "f": 1.5, "l": [1, None, True], "b": {"$bytes": "AP8="}}
            await reader.send(type="group_send", id=2, group="room", message=message)
            # The message takes its way through Redis, and may be there first.
            frames = {frame["type"]: frame for frame in [await reader.frame(), await reader.frame()]}
            assert frames["accepted"]["members"] is None and frames["message"]["message"] == message
            for channel in channels:
                received = await asyncio.wait_for(layer.receive(channel), 5)
                assert received == {**message, "b": b"\x00\xff"}
            # And to one of them alone.
            await asyncio.to_thread(post, gateway, f"/v1/channels/{channels[0]}/send", {"type": "only"}, 202)
            assert await asyncio.wait_for(layer.receive(channels[0]), 5) == {"type": "only"}
        await layer.close_pools()

    run(story())


def test_django_reaches_a_connection_by_its_channel(redis, start):
    gateways = [start(), start()]

    async def story():
        layer = layer_of(redis)
        async with connect(gateways[1]) as reader:
            await layer.send(reader.channel, {"type": "direct", "n": 1})
            assert (await reader.message("direct"))["n"] == 1
            await layer.group_add("vips", reader.channel)
            await layer.group_send("vips", {"type": "to.group", "n": 2})
            assert (await reader.message("to.group"))["n"] == 2
            await asyncio.to_thread(post, gateways[0], "/v1/groups/vips/send", {"type": "from.us"}, 202)
            assert await reader.message("from.us")
        await layer.close_pools()

    run(story())


def test_a_worker_of_django_gets_what_is_sent_to_its_channel_up_to_its_capacity(redis, start):
    gateway = start("capacity = 3")

    async def story():
        layer = layer_of(redis)
        for n in range(3):
            await asyncio.to_thread(post, gateway, "/v1/channels/db-queries/send", {"type": "work", "n": n}, 202)
        full = await asyncio.to_thread(post, gateway, "/v1/channels/db-queries/send", {"type": "work", "n": 3}, 503)
        assert full["code"] == "channel_full"
        for n in range(3):
            assert (await asyncio.wait_for(layer.receive("db-queries"), 5))["n"] == n
        await layer.close_pools()

    run(story())


@pytest.mark.parametrize(
    ("ours", "django"),
    [
        ('serializer = "json"', {"serializer_format": "json"}),
        ("random_prefix_length = 0", {"random_prefix_length": 0}),
        ('encryption_keys = ["new", "s3cret"]', {"symmetric_encryption_keys": ["s3cret", "new"]}),
        (
            'serializer = "json"\nencryption_keys = ["s3cret"]\nprefix = "shop"\nrandom_prefix_length = 5',
            {"serializer_format": "json", "symmetric_encryption_keys": ["s3cret"], "prefix": "shop", "random_prefix_length": 5},
        ),
    ],
)
def test_both_say_it_the_same_way(redis, start, ours, django):
    gateway = start(ours)

    async def story():
        layer = layer_of(redis, **django)
        channel = await layer.new_channel()
        await layer.group_add("room", channel)
        async with connect(gateway) as reader:
            await reader.subscribe("room")
            message = {"type": "chat.message", "text": "Grüße 🦀", "n": 2**40}
            for _ in range(2):
                await layer.group_send("room", message)
                assert await reader.message("chat.message") == message
                assert await asyncio.wait_for(layer.receive(channel), 5) == message
            await asyncio.to_thread(post, gateway, "/v1/groups/room/send", message, 202)
            assert await asyncio.wait_for(layer.receive(channel), 5) == message
        await layer.close_pools()

    run(story())


@pytest.mark.parametrize("wrong", [{"n": 2**64}, {"__asgi_channel__": "specific.other!1"}])
@pytest.mark.parametrize("path", ["/v1/groups/room/send", "/v1/channels/db-queries/send"])
def test_what_channels_cannot_have_is_refused(redis, start, path, wrong):
    refused = post(start(), path, {"type": "chat.message"} | wrong, 422)
    assert refused["code"] == "invalid_message", refused
    with redis_client.Redis.from_url(redis.url) as client:
        assert client.keys("asgidb-queries") == []


def test_to_django_all_gateways_are_one_member(redis, start):
    gateways = [start(), start()]
    long = "g" * 99

    async def story():
        layer = layer_of(redis)
        async with connect(gateways[0]) as one, connect(gateways[0]) as two, connect(gateways[1]) as three:
            for reader in (one, two, three):
                await reader.subscribe("room")
                await reader.subscribe(long)
            with redis_client.Redis.from_url(redis.url) as client:
                assert client.zcard("asgi:group:room") == 1 and client.zcard(f"asgi:group:{long}") == 1
            await layer.group_send(long, {"type": "chat.message"})
            for reader in (one, two, three):
                await reader.message("chat.message")
        with redis_client.Redis.from_url(redis.url) as client:
            wait_for("the gateways to leave", lambda: client.zcard("asgi:group:room") == 0)
            assert client.keys("*inflight*") == []
        await layer.close_pools()

    run(story())


def test_work_that_came_while_no_gateway_ran_is_done_once_when_one_does(redis, start):
    gateway = start()
    member(redis, "my_group")
    gateway.kill()

    async def send():
        layer = layer_of(redis)
        for _ in range(50):
            await layer.group_send("my_group", {"type": "execute_query", "queryset_id": 7})
        await layer.close_pools()

    run(send())
    gateway.start()
    wait_for("all of it to be done", lambda: states(gateway) == ["succeeded"] * 50)
    with redis_client.Redis.from_url(redis.url) as client:
        wait_for("nothing to be left", lambda: client.keys("asgigroupcast*") == [] and client.keys("*parked*") == [])


def test_the_redis_client_that_pip_installs_today_sends_work_all_the_same(redis, start):
    # Its blocking reads break consumers of Channels, and so Daphne; a gateway does not read that way.
    gateway = start()
    member(redis, "my_group")
    python = Path(__file__).parents[1] / ".venv-redis8" / "bin" / "python"
    version = subprocess.run([python, "-c", "import redis; print(redis.__version__)"], capture_output=True, text=True, check=True)
    assert int(version.stdout.split(".")[0]) >= 8, version.stdout
    sender = [python, Path(__file__).with_name("sender.py"), redis.url, "my_group", "at_least", "0", "20"]
    sent = subprocess.run(sender, capture_output=True, text=True, timeout=60)
    assert sent.returncode == 0, sent.stderr
    wait_for("all of it to be done", lambda: states(gateway) == ["succeeded"] * 20)


def test_what_cannot_be_understood_is_dropped_and_harms_nobody(redis, start):
    gateway = start()

    async def story():
        layer = layer_of(redis)
        async with connect(gateway) as reader:
            await reader.subscribe("room")
            with redis_client.Redis.from_url(redis.url) as client:
                name = client.zrange("asgi:group:room", 0, -1)[0].decode()
                key = "asgi" + name[: name.index("!") + 1]
                own = "asgi" + reader.channel[: reader.channel.index("!") + 1]
                for n, garbage in enumerate([b"", b"short", b"\xff" * 40, b"x" * 12 + b"\x81\x01\x01", b"y" * 12 + b"\xc0"]):
                    client.zadd(key, {garbage: time.time() + n / 1000})
                    client.zadd(own, {garbage + b"!": time.time()})
            await layer.group_send("room", {"no": "type"})
            await layer.group_send("room", {"type": "job.result", "job": "forged"})
            await layer.group_send("room", {"type": "chat.message"})
            await reader.expect("message")
        await layer.close_pools()

    run(story())
    assert metric(gateway, "foreign_dropped_total") >= 7


def member(redis, group: str) -> None:
    """Waits until the gateways are a member of a group."""
    with redis_client.Redis.from_url(redis.url) as client:
        wait_for(f"the gateways to be in {group}", lambda: client.zcard(f"asgi:group:{group}") == 1)
