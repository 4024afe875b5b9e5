"""The project in tests/django works by itself: Django Channels on a real Redis, with no gateway."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest
import websockets
from brokers import Redis
from client import run
from conftest import DEADLINE
from fleet import Django, Worker

PEER = Path(__file__).with_name("peer.py")


@pytest.fixture
def redis(tmp_path):
    server = Redis(tmp_path)
    yield server
    server.kill()


@pytest.mark.parametrize(("server", "layer"), [("daphne", "core"), ("uvicorn", "core"), ("daphne", "pubsub")])
def test_the_view_returns_and_every_consumer_of_the_group_is_told(tmp_path, redis, server, layer):
    settings = {"LAYER": layer, "LAYER_HOSTS": redis.url, "LAYER_SERIALIZER": "json", "LAYER_KEYS": "new,old"}
    django = Django(tmp_path, server, **settings)

    async def story():
        async with socket(django, "my_group") as first, socket(django, "my_group") as second:
            assert {(await frame(each))["type"] for each in (first, second)} == {"welcome"}
            answer = await asyncio.to_thread(django.get, "/reports/7/")
            assert (answer.status_code, answer.json()) == (202, {"status": "accepted"})
            for each in (first, second):
                assert await frame(each) == {"type": "execute_query", "queryset_id": 7}

    try:
        run(story())
    finally:
        django.kill()


def test_a_worker_answers_to_the_group(tmp_path, redis):
    django = Django(tmp_path, LAYER_HOSTS=redis.url)
    worker = Worker(tmp_path, "db-queries", LAYER_HOSTS=redis.url)

    async def story():
        async with socket(django, "my_group") as client:
            assert (await frame(client))["type"] == "welcome"
            assert (await asyncio.to_thread(django.get, "/work/7/")).status_code == 202
            assert await frame(client) == {"type": "query.done", "queryset_id": 7}

    try:
        run(story())
    finally:
        worker.kill()
        django.kill()


def test_a_socket_knows_who_has_logged_in(tmp_path, redis):
    django = Django(tmp_path, LAYER_HOSTS=redis.url)
    django.add_user("ada", "s3cret")

    async def user(headers: dict) -> str:
        async with socket(django, "my_group", headers) as client:
            return (await frame(client))["user"]

    try:
        assert django.post("/login/", data={"username": "ada", "password": "wrong"}).status_code == 403
        answer = django.post("/login/", data={"username": "ada", "password": "s3cret"})
        assert answer.json() == {"user": "ada"}
        cookie = f"sessionid={answer.cookies['sessionid']}"
        assert asyncio.run(user({"Cookie": cookie})) == "ada"
        assert asyncio.run(user({})) == ""
    finally:
        django.kill()


@pytest.mark.parametrize("layer", ["core.RedisChannelLayer", "pubsub.RedisPubSubChannelLayer"])
def test_peers_talk_to_each_other(redis, layer):
    settings = {"BACKEND": f"channels_redis.{layer}", "CONFIG": {"hosts": [redis.url], "prefix": "mine"}}
    with peer(settings) as (tell, answer):
        assert answer() == {"ready": layer.split(".")[1]}
        tell(id=1, do="new_channel")
        channel = answer()["ok"]
        tell(id=2, do="group_add", args=["g", channel])
        assert answer() == {"id": 2, "ok": None}
        tell(id=3, do="receive", args=[channel])
        message = {"type": "a", "n": 7, "b": {"__bytes__": "00ff"}}
        tell(id=4, do="group_send", args=["g", message])
        # Which of the two is done first is not said.
        assert sorted([answer(), answer()], key=lambda said: said["id"]) == [
            {"id": 3, "ok": message},
            {"id": 4, "ok": None},
        ]
        tell(id=5, do="group_send", args=["not a group", {"type": "a"}])
        if layer.startswith("core"):
            assert answer()["error"] == "TypeError"
        else:
            assert answer() == {"id": 5, "ok": None}
        tell(id=6, do="receive", args=[channel], timeout=0.05)
        assert answer() == {"id": 6, "error": "TimeoutError", "text": ""}


class peer:
    """A peer process: a way to tell it something, and a way to hear its next answer."""

    def __init__(self, settings: dict):
        command = [sys.executable, str(PEER), json.dumps(settings)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self):
        return self.tell, lambda: json.loads(self.process.stdout.readline())

    def __exit__(self, *_):
        self.process.stdin.close()
        try:
            assert self.process.wait(DEADLINE) == 0
        finally:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()

    def tell(self, **command) -> None:
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()


def socket(django: Django, group: str, headers: dict | None = None):
    return websockets.connect(f"{django.ws}/ws/{group}/", additional_headers=headers, proxy=None)


async def frame(client) -> dict:
    return json.loads(await asyncio.wait_for(client.recv(), DEADLINE))
