"""Django Channels and gateways in the same groups: `channels_nats`, unchanged, on one NATS."""

import asyncio

import httpx
import nats as nats_client
import pytest
from brokers import Nats
from channels_nats import NatsChannelLayer
from client import connect, run
from conftest import wait_for
from django.test import RequestFactory
from story import Gateways, jobs, metric, post, start_query, states, use_layer

LAYER = """
[jobs]
single_gateway = true

[layer]
kind = "nats"
url = "{url}"
dialect = "channels_nats"
{more}
"""


@pytest.fixture
def nats(tmp_path):
    server = Nats(tmp_path / "nats")
    yield server
    server.kill()


@pytest.fixture
def start(tmp_path, nats):
    """Starts gateways on the NATS."""
    gateways = Gateways(tmp_path, LAYER.replace("{url}", nats.url))
    yield gateways
    gateways.end()


def test_the_view_runs_its_query_once_and_the_sockets_have_the_rows(nats, start):
    first, second = start(), start()
    use_layer("channels_nats.NatsChannelLayer", servers=[nats.url])

    async def story():
        layer = NatsChannelLayer(nats.url)
        channel = await layer.new_channel()
        await layer.group_add("my_group", channel)
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
        # A consumer of Django in the same group sees what was sent, and what came of it.
        assert await receive(layer, channel) == {"type": "execute_query", "queryset_id": 7}
        assert (await receive(layer, channel, "job.result"))["result"]["rows"] == [["coffee", 42], ["tea", 30]]
        await layer.close()

    run(story())
    assert jobs(first) + jobs(second) == 1


def test_what_django_sends_reaches_the_sockets_of_all_gateways_in_order(nats, start):
    gateways = [start(), start()]

    async def story():
        layer = NatsChannelLayer(nats.url)
        async with connect(gateways[0]) as one, connect(gateways[1]) as two:
            for reader in (one, two):
                await reader.subscribe("room")
            for n in range(300):
                await layer.group_send("room", {"type": "chat.message", "n": n, "text": "Grüße 🦀"})
            for reader in (one, two):
                for n in range(300):
                    assert await reader.message("chat.message") == {"type": "chat.message", "n": n, "text": "Grüße 🦀"}
        await layer.close()

    run(story())


def test_what_a_gateway_is_sent_reaches_django_and_no_gateway_takes_it_twice(nats, start):
    gateways = [start(), start()]

    async def story():
        layer = NatsChannelLayer(nats.url)
        channels = [await layer.new_channel() for _ in range(2)]
        for channel in channels:
            await layer.group_add("room", channel)
        async with connect(gateways[0]) as one, connect(gateways[1]) as two:
            for reader in (one, two):
                await reader.subscribe("room")
            message = {"type": "chat.message", "text": "hi", "n": -1, "f": 1.5, "l": [1, None, True], "b": {"$bytes": "AP8="}}
            await one.send(type="group_send", id=2, group="room", message=message)
            # The message takes its way through NATS, and may be there first.
            frames = {frame["type"]: frame for frame in [await one.frame(), await one.frame()]}
            assert frames["accepted"]["members"] is None and frames["message"]["message"] == message
            await asyncio.to_thread(post, gateways[1], "/v1/groups/room/send", {"type": "second"}, 202)
            for channel in channels:
                assert await receive(layer, channel) == {**message, "b": b"\x00\xff"}
                assert await receive(layer, channel) == {"type": "second"}
            # Behind Django's own nothing comes but that.
            await layer.group_send("room", {"type": "last"})
            assert [(await one.expect("message"))["message"]["type"] for _ in range(2)] == ["second", "last"]
            assert [(await two.expect("message"))["message"]["type"] for _ in range(3)] == ["chat.message", "second", "last"]
        await layer.close()

    run(story())
    assert metric(gateways[0], "foreign_arrived_total") + metric(gateways[1], "foreign_arrived_total") == 1


def test_channels_of_processes_are_reached_both_ways(nats, start):
    gateways = [start(), start()]

    async def story():
        layer = NatsChannelLayer(nats.url)
        channel = await layer.new_channel()
        async with connect(gateways[1]) as reader:
            await layer.send(reader.channel, {"type": "direct", "n": 1, "b": b"\x00"})
            assert await reader.message("direct") == {"type": "direct", "n": 1, "b": {"$bytes": "AA=="}}
            for gateway in gateways:
                await asyncio.to_thread(post, gateway, f"/v1/channels/{channel}/send", {"type": "only"}, 202)
                assert await receive(layer, channel) == {"type": "only"}
                await asyncio.to_thread(post, gateway, f"/v1/channels/{reader.channel}/send", {"type": "ours"}, 202)
                assert await reader.message("ours")
            # Their layer lets a process add its own channels only, so ours are in groups by `subscribe`.
            with pytest.raises(ValueError, match="belongs to another process"):
                await layer.group_add("vips", reader.channel)
        await layer.close()
        gone = await asyncio.to_thread(post, gateways[0], f"/v1/channels/{channel}/send", {"type": "late"}, 404)
        assert gone["code"] == "not_found"

    run(story())


def test_each_message_in_a_common_channel_goes_to_one_worker_and_without_any_that_is_told(nats, start):
    gateway = start()
    nobody = post(gateway, "/v1/channels/db-queries/send", {"type": "work"}, 503)
    assert nobody["code"] == "unavailable" and "nobody reads" in nobody["detail"], nobody

    async def story():
        layers, got, sent = [NatsChannelLayer(nats.url) for _ in range(2)], [[], []], []

        async def work(layer, into):
            while True:
                into.append((await layer.receive("db-queries"))["n"])

        workers = [asyncio.create_task(work(layer, into)) for layer, into in zip(layers, got, strict=True)]
        async with asyncio.timeout(20):
            # Until both listen; what is sent before the first one does is refused.
            while len(sent) < 40 or not all(got):
                n = len(sent)
                if await asyncio.to_thread(is_sent, gateway, "db-queries", {"type": "work", "n": n}):
                    sent.append(n)
            while len(got[0]) + len(got[1]) < len(sent):
                await asyncio.sleep(0.01)
        assert sorted(got[0] + got[1]) == sent
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        for layer in layers:
            await layer.close()

    run(story())


def test_work_that_came_while_no_gateway_ran_is_done_once_when_one_does(nats, start):
    gateway = start()
    gateway.kill()

    async def send():
        layer = NatsChannelLayer(nats.url)
        for _ in range(50):
            await layer.group_send("my_group", {"type": "execute_query", "queryset_id": 7})
        await layer.close()

    run(send())
    gateway.start()
    wait_for("all of it to be done", lambda: states(gateway) == ["succeeded"] * 50)
    wait_for("nothing to be left", lambda: metric(gateway, "foreign_waiting") == 0)


def test_django_and_clients_share_the_numbers_of_a_history(nats, start):
    more = '[[group]]\nname = "kept.*"\nhistory = { messages = 1000, age = "1h" }'
    gateways = [start(more), start(more)]

    async def story():
        layer = NatsChannelLayer(nats.url, prefix="channels")
        async with connect(gateways[0]) as one:
            await one.send(type="subscribe", id=1, group="kept.room")
            epoch = (await one.expect("subscribed"))["epoch"]

            async def ours():
                for n in range(50):
                    await asyncio.to_thread(post, gateways[n % 2], "/v1/groups/kept.room/send", {"type": "ours", "n": n}, 202)

            async def django():
                for n in range(50):
                    await layer.group_send("kept.room", {"type": "django", "n": n})
                    await asyncio.sleep(0.002)

            await asyncio.gather(ours(), django())
            seen = [await one.expect("message") for _ in range(100)]
            assert [frame["offset"] for frame in seen] == list(range(1, 101))
            for kind in ("ours", "django"):
                sent = [frame["message"]["n"] for frame in seen if frame["message"]["type"] == kind]
                assert sent == list(range(50))
        async with connect(gateways[1]) as two:
            after = {"epoch": epoch, "offset": 90}
            await two.send(type="subscribe", id=1, group="kept.room", after=after)
            answer = await two.frame()
            assert answer["type"] == "subscribed" and answer["recovered"] is True, answer
            again = [await two.expect("message") for _ in range(10)]
            assert again == seen[90:]
        await layer.close()

    run(story())


def test_the_prefix_keeps_projects_apart(nats, start):
    gateway = start('prefix = "shop"')

    async def story():
        shop, other = NatsChannelLayer(nats.url, prefix="shop"), NatsChannelLayer(nats.url)
        channel = await shop.new_channel()
        await shop.group_add("room", channel)
        async with connect(gateway) as reader:
            await reader.subscribe("room")
            await other.group_send("room", {"type": "elsewhere"})
            await shop.group_send("room", {"type": "here"})
            assert (await reader.expect("message"))["message"] == {"type": "here"}
            await asyncio.to_thread(post, gateway, "/v1/groups/room/send", {"type": "ours"}, 202)
            assert [(await receive(shop, channel))["type"] for _ in range(2)] == ["here", "ours"]
        await shop.close()
        await other.close()

    run(story())


def test_a_group_that_django_cannot_name_is_one_of_gateways_alone(nats, start):
    gateways = [start(), start()]

    async def story():
        async with connect(gateways[0]) as one, connect(gateways[1]) as two:
            for name in ("room.", "a..b"):
                await one.subscribe(name)
                await two.subscribe(name)
                await asyncio.to_thread(post, gateways[0], f"/v1/groups/{name}/send", {"type": "chat"}, 202)
                for reader in (one, two):
                    assert (await reader.expect("message"))["group"] == name

    run(story())


@pytest.mark.parametrize("wrong", [{"n": 2**64}, {"__asgi_channel__": "specific.other!1"}, {"f": [0.0] * 130_000}])
@pytest.mark.parametrize("path", ["/v1/groups/room/send", "/v1/channels/db-queries/send"])
def test_what_channels_cannot_have_is_refused(nats, start, path, wrong):
    refused = post(start(), path, {"type": "chat.message"} | wrong, 422)
    assert refused["code"] == "invalid_message", refused


def test_what_cannot_be_understood_is_dropped_and_harms_nobody(nats, start):
    gateway = start()

    async def story():
        layer, outside = NatsChannelLayer(nats.url), await nats_client.connect(nats.url)
        async with connect(gateway) as reader:
            await reader.subscribe("room")
            node = reader.channel[: reader.channel.index("!")]
            garbage = [b"", b"\xff" * 40, b"\x81\x01\x01", b"\xc0", b"\x81\xa1\x61", b"\x00" * 1_000_000]
            for payload in garbage:
                await outside.publish("channels.grp.room", payload)
                await outside.publish("channels.grp." + "g" * 120, payload)
                await outside.publish(f"channels.pc.{node}", payload)
                await outside.publish(f"channels.pc.{node}", payload, headers={"Channel": reader.channel})
            await outside.publish(f"channels.pc.{node}", b"\x81\xa4type\xa1x", headers={"Channel": "no!such!name"})
            await outside.flush()
            await layer.group_send("room", {"no": "type"})
            await layer.group_send("room", {"type": "large", "x": "x" * 1_048_000})
            await layer.group_send("room", {"type": "job.result", "job": "forged"})
            await layer.group_send("room", {"type": "chat.message"})
            assert (await reader.expect("message"))["message"]["type"] == "large"
            assert (await reader.expect("message"))["message"]["type"] == "chat.message"
        await outside.close()
        await layer.close()

    run(story())
    wait_for("all of it to be dropped", lambda: metric(gateway, "foreign_dropped_total") >= 4 * 6 + 2)
    wait_for("nothing to be left", lambda: metric(gateway, "foreign_waiting") == 0)


def test_what_no_group_is_called_is_dropped_also_when_it_was_sent_before_anybody_listened(nats, start):
    start().kill()

    async def story():
        outside = await nats_client.connect(nats.url)
        for payload in (b"\x81\xa4type\xa1x", b"", b"\xff"):
            await outside.publish("channels.grp." + "g" * 120, payload)
        await outside.close()

    run(story())
    gateway = start()
    wait_for("all of it to be dropped", lambda: metric(gateway, "foreign_dropped_total") == 3)
    wait_for("nothing to be left", lambda: metric(gateway, "foreign_waiting") == 0)


async def receive(layer, channel: str, kind: str | None = None) -> dict:
    """The next message in a channel, or the next of a type."""
    async with asyncio.timeout(20):
        while True:
            message = await layer.receive(channel)
            if kind in (None, message["type"]):
                return message


def is_sent(gateway, channel: str, message: dict) -> bool:
    answer = httpx.post(f"{gateway.url}/v1/channels/{channel}/send", json=message, trust_env=False)
    assert answer.status_code in (202, 503), answer.text
    return answer.status_code == 202
