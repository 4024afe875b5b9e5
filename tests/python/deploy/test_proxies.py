"""nginx and Caddy as deploy/ has them, in front of real gateways: sockets, event streams, who may reach what, a drain."""

import asyncio
import http.server
import json
import threading
from contextlib import contextmanager
from types import SimpleNamespace

import httpx
import pytest
import websockets
from client import connect, run
from conftest import CONFIG, DEADLINE, Gateway, make_database
from credentials import AUTH, KEY, bearer, token, write_to
from servers import DEPLOY, Caddy, Nginx, get, post, replace_once

PROXIES = ["nginx", "caddy"]


@pytest.fixture
def gateway(tmp_path):
    """One that knows of a proxy and lets in nobody who shows nothing, as the shipped configurations say."""
    config = replace_once(CONFIG, "[server]\n", '[server]\ntrusted_proxies = ["127.0.0.1"]\n')
    (tmp_path / "groupcast.toml").write_text(config + AUTH)
    write_to(tmp_path)
    make_database(tmp_path / "shop.db")
    running = Gateway(tmp_path)
    yield running
    assert running.stop() == 0
    running.reader.join(DEADLINE)
    assert not any("panicked at" in line for line in running.lines)


@contextmanager
def proxy(kind, tmp_path, gateway, change=lambda text: text):
    port = int(gateway.address.split(":")[1])
    if kind == "nginx":
        server = Nginx(tmp_path / "nginx", "nginx/upstream.conf", {8000: port}, change)
    else:
        server = Caddy(tmp_path / "caddy", gateway.address, change)
    try:
        yield server
    finally:
        server.end()


def front(server):
    """The proxy as what `connect` takes for a gateway."""
    return SimpleNamespace(ws=f"ws://127.0.0.1:{server.public}/ws")


@pytest.mark.parametrize("kind", PROXIES)
def test_a_message_goes_through_to_sockets_and_event_streams(gateway, tmp_path, kind):
    with proxy(kind, tmp_path, gateway) as server:
        services = f"http://127.0.0.1:{server.services}"

        async def story():
            user = bearer(token())
            async with (
                connect(front(server), additional_headers=user) as client,
                httpx.AsyncClient(trust_env=False, timeout=DEADLINE, headers=user) as http,
            ):
                await client.subscribe("room")
                url = f"http://127.0.0.1:{server.public}/v1/events?group=room"
                async with http.stream("GET", url) as stream:
                    assert stream.headers["content-type"].startswith("text/event-stream")
                    lines = stream.aiter_lines()
                    # It comes before anything else is sent: nothing waits for a buffer to be full.
                    assert await line_with(lines, "event:") == "event: subscribed"
                    url, message = f"{services}/v1/groups/room/send", {"type": "chat", "text": "hello"}
                    sent = await asyncio.to_thread(post, url, json=message, headers=bearer(KEY))
                    assert (sent.status_code, sent.json()["members"]) == (202, 2)
                    assert (await client.message("chat"))["text"] == "hello"
                    while True:
                        push = json.loads((await line_with(lines, "data:"))[5:])
                        if push["type"] == "message":
                            break
                    assert push["message"] == {"type": "chat", "text": "hello"}

        run(story())


@pytest.mark.parametrize("kind", PROXIES)
def test_the_public_side_has_sockets_and_nothing_else(gateway, tmp_path, kind):
    with proxy(kind, tmp_path, gateway) as server:
        public, services = (f"http://127.0.0.1:{port}" for port in (server.public, server.services))
        for path in ["/metrics", "/v1/jobs", "/v1/groups", "/v1/groups/g/send", "/docs", "/readyz", "/ws/", "/v1/events/x"]:
            assert get(public + path, headers=bearer(KEY)).status_code == 404, path
        assert post(f"{public}/v1/groups/g/send", json={"type": "x"}, headers=bearer(KEY)).status_code == 404
        for path in ["/metrics", "/v1/jobs", "/readyz"]:
            assert get(services + path, headers=bearer(KEY)).status_code == 200, path
            assert get(services + path).status_code == (200 if path == "/readyz" else 401), path
        # As large as the gateway takes, and no larger.
        size = 1 << 20
        url = f"{services}/v1/groups/g/send"
        assert post(url, content=b"x" * size, headers=bearer(KEY)).status_code == 422
        assert post(url, content=b"x" * (size + 1), headers=bearer(KEY)).status_code == 413


@pytest.mark.parametrize("kind", PROXIES)
def test_the_gateway_knows_clients_by_their_own_addresses(gateway, tmp_path, kind):
    with proxy(kind, tmp_path, gateway) as server:
        services = f"http://127.0.0.1:{server.services}"

        async def story():
            # What a client says about itself is not believed.
            headers = bearer(token()) | {"X-Forwarded-For": "192.0.2.7"}
            for address in ["127.0.0.2", "127.0.0.3"]:
                how = {"additional_headers": headers, "local_addr": (address, 0)}
                async with connect(front(server), **how) as client:
                    url = f"{services}/v1/connections/{client.channel}"
                    shown = await asyncio.to_thread(get, url, headers=bearer(KEY))
                    assert shown.json()["peer"].split(":")[0] == address, shown.text

        run(story())


@pytest.mark.parametrize("kind", PROXIES)
def test_a_foreign_page_is_refused_by_the_gateway_behind_it(gateway, tmp_path, kind):
    with proxy(kind, tmp_path, gateway) as server:
        url = f"ws://127.0.0.1:{server.public}/ws"

        async def story():
            own, user = f"http://127.0.0.1:{server.public}", bearer(token())
            async with websockets.connect(url, origin=own, additional_headers=user, proxy=None) as socket:
                assert json.loads(await socket.recv())["type"] == "welcome"
            with pytest.raises(websockets.InvalidStatus) as refused:
                await websockets.connect(url, origin="https://evil.example", additional_headers=user, proxy=None)
            assert refused.value.response.status_code == 403

        run(story())


@pytest.mark.parametrize("kind", PROXIES)
def test_a_service_of_yours_says_who_may_come_in(gateway, tmp_path, kind):
    with door() as (port, asked):

        def change(text):
            return uncommented(text, kind).replace("127.0.0.1:8001", f"127.0.0.1:{port}")

        with proxy(kind, tmp_path, gateway, change) as server:

            async def story():
                with pytest.raises(websockets.InvalidStatus) as refused:
                    await websockets.connect(front(server).ws, additional_headers=bearer(token()), proxy=None)
                assert refused.value.response.status_code == 403
                headers = {"Cookie": "sessionid=ada"} | bearer(token())
                async with websockets.connect(front(server).ws, additional_headers=headers, proxy=None) as socket:
                    assert json.loads(await socket.recv())["type"] == "welcome"

            run(story())
            events = f"http://127.0.0.1:{server.public}/v1/events?group=g"
            assert get(events, headers=bearer(token())).status_code == 403
            headers = {"Cookie": "sessionid=ada"} | bearer(token())
            with httpx.stream("GET", events, headers=headers, trust_env=False) as stream:
                assert stream.status_code == 200
    assert len(asked) == 4 and all(path.split("?")[0] == "/may-enter/" for path in asked), asked


def test_timeouts_of_nginx_are_longer_than_the_gateways(gateway):
    """So that the gateway says why something ended."""
    from limits import limits, seconds

    text, known = (DEPLOY / "nginx/groupcast.conf").read_text(), limits()
    reads = [seconds(line.split()[1]) for line in text.splitlines() if line.strip().startswith("proxy_read_timeout")]
    assert len(reads) == 2
    for name in ["ping_interval", "pong_timeout", "wait_timeout"]:
        assert all(read > known[name] for read in reads), name
    assert min(reads) > known["ping_interval"] + known["pong_timeout"]
    for file in ["nginx/upstream.conf", "compose/upstream.conf"]:
        line = next(line for line in (DEPLOY / file).read_text().splitlines() if "keepalive_timeout" in line)
        assert seconds(line.split()[1]) < known["idle_timeout"], file


async def line_with(lines, beginning: str) -> str:
    async with asyncio.timeout(DEADLINE):
        async for line in lines:
            if line.startswith(beginning):
                return line
    raise AssertionError(f"the stream ended before {beginning}")


def uncommented(text: str, kind: str) -> str:
    """The file with the lines about a service of yours switched on."""
    first, last = {"nginx": ("# auth_request", "# }"), "caddy": ("# forward_auth", "# }")}[kind]
    lines, inside = [], False
    for line in text.splitlines():
        inside = inside or line.strip().startswith(first)
        lines.append(line.replace("# ", "", 1) if inside else line)
        inside = inside and line.strip() != last
    assert first not in "\n".join(lines)
    return replace_once("\n".join(lines), first[2:], first[2:])


@contextmanager
def door():
    """A service that lets in who has a cookie, and notes what it was asked."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(204 if "sessionid=ada" in (self.headers["Cookie"] or "") else 403)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port, asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join(DEADLINE)
