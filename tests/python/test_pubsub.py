"""Django Channels and gateways in the same groups: `channels_redis.pubsub`, unchanged, on one Redis or two."""

import asyncio

import pytest
import redis as redis_client
from brokers import Redis
from channels_redis.pubsub import RedisPubSubChannelLayer
from client import connect, run
from conftest import wait_for
from django.test import RequestFactory
from story import Gateways, jobs, metric, post, start_query, use_layer

LAYER = """
[jobs]
single_gateway = true

[layer]
kind = "redis"
hosts = [{hosts}]
dialect = "channels_redis.pubsub"
{more}
"""

MESSAGE = {"type": "chat.message", "text": "Grüße 🦀", "n": 2**40, "l": [1, None, True], "f": 1.5}


@pytest.fixture
def redis(tmp_path):
    server = Redis(tmp_path / "redis")
    yield server
    server.kill()


@pytest.fixture
def start(tmp_path, redis):
    """Starts gateways on the Redis."""
    gateways = gateways_on(tmp_path, redis)
    yield gateways
    gateways.end()


def gateways_on(folder, *servers) -> Gateways:
    return Gateways(folder, LAYER.replace("{hosts}", ", ".join(f'"{server.url}"' for server in servers)))


def layer_of(redis, **options) -> RedisPubSubChannelLayer:
    return RedisPubSubChannelLayer(hosts=[redis.url], **options)


def test_the_view_runs_its_query_once_and_the_sockets_have_the_rows(redis, start):
    gateways = [start(), start()]
    use_layer("channels_redis.pubsub.RedisPubSubChannelLayer", hosts=[redis.url])

    async def story():
        async with connect(gateways[0]) as one, connect(gateways[1]) as two:
            await one.subscribe("my_group")
            await two.subscribe("my_group")
            answer = await asyncio.to_thread(start_query, RequestFactory().post("/start/7"), 7)
            assert answer.status_code == 202
            for reader in (one, two):
                result = await reader.message("job.result")
                assert result["result"]["rows"] == [["coffee", 42], ["tea", 30]]
                assert result["attempt"] == 1

    run(story())
    assert sum(map(jobs, gateways)) == 1


def test_what_django_sends_reaches_the_sockets_of_all_gateways_once_and_in_order(redis, start):
    gateways = [start(), start(), start()]

    async def story():
        layer = layer_of(redis)
        async with connect(gateways[0]) as one, connect(gateways[2]) as two:
            for reader in (one, two):
                await reader.subscribe("room")
            for n in range(300):
                # Equal ones, too: nothing in a frame says which it is.
                await layer.group_send("room", {"type": "chat.message", "n": n // 2})
            for reader in (one, two):
                for n in range(300):
                    assert await reader.message("chat.message") == {"type": "chat.message", "n": n // 2}
            # Nothing more comes than what was sent.
            await layer.group_send("room", {"type": "last"})
            for reader in (one, two):
                assert (await reader.frame())["message"] == {"type": "last"}
        await closed(layer)

    run(story())
    assert sum(metric(gateway, "foreign_lost_total") for gateway in gateways) == 0


def test_what_a_gateway_is_sent_reaches_django_and_comes_back_to_nobody(redis, start):
    gateways = [start(), start()]

    async def story():
        layer = layer_of(redis)
        channels = [await layer.new_channel() for _ in range(2)]
        for channel in channels:
            await joined(layer, "room", channel, redis)
        async with connect(gateways[0]) as reader:
            await reader.subscribe("room")
            for n in range(20):
                message = MESSAGE | {"n": n, "b": {"$bytes": "AP8="}}
                await asyncio.to_thread(post, gateways[n % 2], "/v1/groups/room/send", message, 202)
                assert (await reader.frame())["message"] == message
                for channel in channels:
                    assert await received(layer, channel) == message | {"b": b"\x00\xff"}
            # And to one of them alone.
            await asyncio.to_thread(post, gateways[0], f"/v1/channels/{channels[0]}/send", {"type": "only"}, 202)
            assert await received(layer, channels[0]) == {"type": "only"}
            await layer.group_send("room", {"type": "last"})
            assert (await reader.frame())["message"] == {"type": "last"}
            # A worker's channel is its name; where nobody listens nothing is kept, and that is said.
            gone = await asyncio.to_thread(post, gateways[0], "/v1/channels/db-queries/send", {"type": "work"}, 503)
            assert "nobody listens" in gone["detail"], gone
            waiting = asyncio.create_task(layer.receive("db-queries"))
            await listened("db-queries", redis)
            await asyncio.to_thread(post, gateways[0], "/v1/channels/db-queries/send", {"type": "work"}, 202)
            assert await asyncio.wait_for(waiting, 5) == {"type": "work"}
        await closed(layer)

    run(story())


def test_django_reaches_a_connection_by_its_channel(redis, start):
    gateway = start()

    async def story():
        layer = layer_of(redis)
        async with connect(gateway) as reader, connect(gateway) as other:
            await layer.send(reader.channel, {"type": "direct", "n": 1})
            assert (await reader.message("direct"))["n"] == 1
            await layer.send(other.channel, {"type": "direct", "n": 2})
            assert (await other.frame())["message"] == {"type": "direct", "n": 2}
        await closed(layer)

    run(story())


@pytest.mark.parametrize(
    ("ours", "django"),
    [
        ('serializer = "json"', {"serializer_format": "json"}),
        ('encryption_keys = ["new", "s3cret"]', {"symmetric_encryption_keys": ["s3cret", "new"]}),
        (
            'serializer = "json"\nencryption_keys = ["s3cret"]\nprefix = "shop.a"',
            {"serializer_format": "json", "symmetric_encryption_keys": ["s3cret"], "prefix": "shop.a"},
        ),
    ],
)
def test_both_say_it_the_same_way(redis, start, ours, django):
    gateways = [start(ours), start(ours)]

    async def story():
        layer = layer_of(redis, **django)
        channel = await layer.new_channel()
        await joined(layer, "room", channel, redis, prefix=django.get("prefix", "asgi"))
        async with connect(gateways[0]) as reader:
            await reader.subscribe("room")
            for _ in range(2):
                await layer.group_send("room", MESSAGE)
                assert (await reader.frame())["message"] == MESSAGE
                assert await received(layer, channel) == MESSAGE
            await asyncio.to_thread(post, gateways[1], "/v1/groups/room/send", MESSAGE, 202)
            assert await received(layer, channel) == MESSAGE
            assert (await reader.frame())["message"] == MESSAGE
        await closed(layer)

    run(story())


def test_hosts_share_the_groups_as_channels_redis_shares_them(tmp_path, redis):
    other = Redis(tmp_path / "other")
    hosts = [redis.url, other.url]
    gateways = gateways_on(tmp_path, redis, other)

    async def story():
        layer = RedisPubSubChannelLayer(hosts=hosts)
        channel = await layer.new_channel()
        async with connect(gateways.running[1]) as reader:
            for n in range(12):
                group = f"room{n}"
                await reader.subscribe(group)
                await joined(layer, group, channel, redis, other)
                await layer.group_send(group, MESSAGE)
                assert (await reader.frame())["message"] == MESSAGE
                assert await received(layer, channel) == MESSAGE
                await asyncio.to_thread(post, gateways.running[0], f"/v1/groups/{group}/send", {"type": "own"}, 202)
                assert await received(layer, channel) == {"type": "own"}
                assert (await reader.frame())["message"] == {"type": "own"}
        await closed(layer)

    try:
        for _ in range(2):
            gateways()
        run(story())
    finally:
        gateways.end()
        other.kill()


def test_what_cannot_be_understood_is_dropped_and_harms_nobody(redis, start):
    gateway = start()

    async def story():
        layer = layer_of(redis)
        async with connect(gateway) as reader:
            await reader.subscribe("room")
            with redis_client.Redis.from_url(redis.url) as client:
                for garbage in (b"", b"\xff" * 40, b"\x81\x01\x01", b"\xc0", b"\xdf\x00\x00\x00\x01"):
                    client.publish("asgi__group__room", garbage)
                    client.publish(reader.channel, garbage)
                client.publish("asgi__group__no group!", b"\x80")
                client.publish("groupcast:asgi:parked", b"what")
                client.publish("groupcast:asgi:parked", b"a 1 " + b"\xff" * 40)
            await layer.group_send("room", {"no": "type"})
            await layer.group_send("room", {"type": "job.result", "job": "forged"})
            await layer.group_send("room", {"type": "chat.message"})
            await reader.expect("message")
        await closed(layer)

    run(story())
    assert metric(gateway, "foreign_dropped_total") >= 9


async def joined(layer, group: str, channel: str, *servers: Redis, prefix: str = "asgi") -> None:
    """Adds a channel to a group. The layer does not wait until Redis has heard of it."""
    await layer.group_add(group, channel)
    for topic in (f"{prefix}__group__{group}", channel):
        await listened(topic, *servers)


async def listened(topic: str, *servers: Redis) -> None:
    def heard() -> bool:
        return any(connection.pubsub_numsub(topic)[0][1] == 1 for connection in connections)

    connections = [redis_client.Redis.from_url(server.url) for server in servers]
    try:
        await asyncio.to_thread(wait_for, f"somebody to listen to {topic}", heard)
    finally:
        for connection in connections:
            connection.close()


async def received(layer, channel: str) -> dict:
    return await asyncio.wait_for(layer.receive(channel), 10)


async def closed(layer) -> None:
    await layer.flush()
