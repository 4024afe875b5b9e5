"""deploy/shared.toml, as two gateways run it on one Redis and one PostgreSQL, behind nginx with the file of compose.yaml."""

import asyncio
import json
import os
import re
import signal
import subprocess
from types import SimpleNamespace

import pytest
import websockets
from brokers import Redis, free_port
from client import connect, run
from conftest import DEADLINE, binary, wait_for
from credentials import KEY, VARIABLES, bearer, token
from servers import DEPLOY, Nginx, Postgres, get, post


class Fleet:
    """Two gateways that differ by what compose.yaml gives them in the environment."""

    def __init__(self, folder):
        self.redis, self.postgres = Redis(folder / "redis"), Postgres()
        self.gateways = [self._gateway(folder, f"gateway{n}") for n in (1, 2)]
        ports = dict(zip((8000, 8001), (gateway.port for gateway in self.gateways)))
        self.nginx = Nginx(folder / "nginx", "compose/upstream.conf", ports)
        self.services = f"http://127.0.0.1:{self.nginx.services}"
        self.public = SimpleNamespace(ws=f"ws://127.0.0.1:{self.nginx.public}/ws")

    def _gateway(self, folder, node: str):
        port, ops = free_port(), free_port()
        env = {k: v for k, v in os.environ.items() if not k.startswith("GROUPCAST_")} | {
            "GROUPCAST_SERVER__NODE": node,
            "GROUPCAST_SERVER__LISTEN": f"127.0.0.1:{port}",
            "GROUPCAST_SERVER__OPS_LISTEN": f"127.0.0.1:{ops}",
            "GROUPCAST_SERVER__DATA_DIR": str(folder / node),
            "GROUPCAST_REDIS_URL": self.redis.url,
            "GROUPCAST_JOBS_URL": self.postgres.url,
        } | VARIABLES
        log = (folder / f"{node}.log").open("w")
        command = [binary(), "serve", "--config", str(DEPLOY / "shared.toml")]
        process = subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=log)
        log.close()
        wait_for(f"{node} to be ready", lambda: is_ready(port, process, folder / f"{node}.log"))
        return SimpleNamespace(port=port, ops=f"http://127.0.0.1:{ops}", process=process, log=folder / f"{node}.log")

    def end(self) -> None:
        self.nginx.end()
        for gateway in self.gateways:
            gateway.process.kill()
            gateway.process.wait(DEADLINE)
        self.postgres.end()
        self.redis.kill()
        for gateway in self.gateways:
            assert "panicked at" not in gateway.log.read_text()


def enter(fleet, credential: str = ""):
    return connect(fleet.public, additional_headers=bearer(credential or token()))


def is_ready(port: int, process, log) -> bool:
    assert process.poll() is None, log.read_text()
    try:
        return get(f"http://127.0.0.1:{port}/readyz").status_code == 200
    except OSError:
        return False
    except Exception as error:  # httpx wraps what the system says
        assert "Connect" in type(error).__name__, error
        return False


@pytest.fixture
def fleet(tmp_path):
    running = Fleet(tmp_path)
    yield running
    running.end()


def test_both_gateways_serve_one_group_and_one_queue(fleet):
    async def story():
        # least_conn gives the second socket to the gateway that the first one is not at.
        async with enter(fleet) as first, enter(fleet) as second:
            assert {node(first), node(second)} == {"gateway1", "gateway2"}
            for client in (first, second):
                await client.subscribe("my_group")
            url = f"{fleet.services}/v1/groups/my_group/send"
            sent = await asyncio.to_thread(post, url, json={"type": "chat", "text": "hello"}, headers=bearer(KEY))
            assert sent.status_code == 202, sent.text
            work = {"type": "execute_query", "queryset_id": 7, "params": {"count": 3}}
            stored = await asyncio.to_thread(post, url, json=work, headers=bearer(KEY))
            assert [job["durability"] for job in stored.json()["jobs"]] == ["disk"], stored.text
            for client in (first, second):
                assert (await client.message("chat"))["text"] == "hello"
                rows = (await client.message("job.result"))["result"]["rows"]
                assert rows == [[1, 1], [2, 4], [3, 9]]

    run(story())


def test_a_drain_sends_clients_to_the_other_gateway(fleet):
    async def story():
        async with enter(fleet) as client:
            left = next(g for g, name in zip(fleet.gateways, ("gateway1", "gateway2")) if name == node(client))
            left.process.send_signal(signal.SIGTERM)
            assert (await client.expect("closing"))["retry_after_ms"] >= 0
            with pytest.raises(Exception) as closed:
                while True:
                    await client.frame()
            assert closed.value.rcvd.code == 1012
            assert await asyncio.to_thread(left.process.wait, DEADLINE) == 0
            for _ in range(4):
                async with enter(fleet) as again:
                    assert node(again) != node(client)
            assert (await asyncio.to_thread(get, f"{fleet.services}/readyz")).status_code == 200

    run(story())


def test_who_shows_nothing_may_do_nothing(fleet):
    public = f"http://127.0.0.1:{fleet.nginx.public}"

    async def story():
        for command in [{"type": "subscribe", "group": "room.1"}, {"type": "group_send", "group": "room.1", "message": {"type": "x"}}]:
            async with websockets.connect(fleet.public.ws, proxy=None) as socket:
                assert json.loads(await socket.recv())["type"] == "welcome"
                await socket.send(json.dumps(command | {"id": 1}))
                refused = json.loads(await socket.recv())
                assert (refused["type"], refused["code"]) == ("error", "unauthenticated"), refused
        # A token lets do what it says.
        async with enter(fleet, token(subscribe=["lobby"])) as client:
            await client.subscribe("lobby")
            await client.send(type="group_send", id=2, group="lobby", message={"type": "x"})
            assert (await client.frame())["code"] == "forbidden"

    run(story())
    assert get(f"{public}/v1/events?group=room.1").status_code == 401
    for path in ["/v1/groups", "/v1/jobs", "/v1/consumers", "/v1/connections"]:
        assert get(fleet.services + path).status_code == 401, path
        assert get(fleet.services + path, headers=bearer(KEY)).status_code == 200, path
        assert get(fleet.services + path, headers=bearer(token())).status_code in (200, 403), path
    assert post(f"{fleet.services}/v1/groups/my_group/send", json={"type": "x"}).status_code == 401


def test_metrics_and_the_admin_page_are_apart_from_clients(fleet):
    for gateway in fleet.gateways:
        assert "groupcast_broker_up 1" in get(f"{gateway.ops}/metrics").text
        assert get(f"{gateway.ops}/readyz").status_code == 200
        assert get(f"{gateway.ops}/admin/api/overview").status_code == 401
        assert get(f"{gateway.ops}/admin/api/overview", headers=bearer(KEY)).status_code == 200
    for path in ["/metrics", "/admin/"]:
        assert get(fleet.services + path, headers=bearer(KEY)).status_code == 404, path


def node(client) -> str:
    return re.fullmatch(r"specific\.(.+)!.+", client.channel).group(1)
