"""A real Django says who a client is, by the session of its own login, and where it may be. No broker is between the two."""

import asyncio
import json
import re

import httpx
import pytest
import websockets
from client import DEADLINE, run
from conftest import CONFIG, Gateway, make_database, wait_for
from fleet import Django

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
KEY = "a-key-of-the-tests-0123456789abcdef0123456789"
CANARY = "canary=leaves-nobody"

HOOKS = """
[auth]
api_keys_file = "keys"

[hooks]
url = "http://127.0.0.1:{port}/groupcast/"
allow_private = true
secret_file = "secret"
events = ["connect", "subscribe", "message", "disconnect"]
groups = ["room.*"]
types = ["chat.*"]
cookies = ["sessionid"]
grants = {{ subscribe = ["room.*", "user.*"], send = ["room.*"] }}
timeout = "10s"
circuit_failures = 2
circuit_open = "1s"
"""


class Browser(httpx.Client):
    """Keeps cookies and fills in Django's form, as a browser does."""

    def __init__(self, django: Django):
        super().__init__(base_url=django.url, timeout=DEADLINE, trust_env=False)
        self.cookies.set("canary", "leaves-nobody")

    def log_in(self, name: str, password: str) -> httpx.Response:
        form = self.get("/accounts/login/").text
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', form).group(1)
        return self.post(
            "/accounts/login/", data={"username": name, "password": password, "csrfmiddlewaretoken": token}
        )

    def log_out(self) -> None:
        token = self.cookies["csrftoken"]
        assert self.post("/accounts/logout/", headers={"x-csrftoken": token}).status_code == 302

    def cookie(self) -> str:
        return "; ".join(f"{cookie.name}={cookie.value}" for cookie in self.cookies.jar)


@pytest.fixture(params=["uvicorn", "daphne"])
def django(tmp_path, request):
    folder = tmp_path / "django"
    folder.mkdir()
    running = Django(folder, request.param, HOOK_SECRET=SECRET)
    running.add_user("ada", "s3cret")
    yield running
    running.kill()


@pytest.fixture
def gateway(tmp_path, django):
    (tmp_path / "groupcast.toml").write_text(CONFIG + HOOKS.format(port=django.port))
    (tmp_path / "secret").write_text(SECRET)
    (tmp_path / "keys").write_text(KEY)
    make_database(tmp_path / "shop.db")
    running = Gateway(tmp_path)
    yield running
    running.kill()
    running.reader.join(DEADLINE)
    assert not [line for line in running.lines if "panicked at" in line]
    assert CANARY not in "".join(running.lines)


def test_a_session_of_django_opens_a_socket(django, gateway):
    django.invite("ada", "7")
    with Browser(django) as browser:
        assert browser.log_in("ada", "wrong").status_code == 200, "Django shows the form again"
        assert refusal(gateway, browser.cookie()) == 401
        answer = browser.log_in("ada", "s3cret")
        assert (answer.status_code, answer.headers["location"]) == (302, "/whoami/")
        assert browser.get("/whoami/").json() == {"user": "ada"}
        cookie = browser.cookie()

        async def story():
            async with socket(gateway, cookie) as ada:
                assert (await frame(ada))["user"] == "ada"
                own = await frame(ada)
                assert own["type"] == "subscribed" and own["group"].startswith("user.")
                post(gateway, own["group"], {"type": "news"})
                assert (await frame(ada))["message"] == {"type": "news"}

                assert (await ask(ada, type="subscribe", group="room.7"))["type"] == "subscribed"
                denied = await ask(ada, type="subscribe", group="room.8")
                assert (denied["code"], denied["message"]) == ("forbidden", "you are not invited")
                assert (await ask(ada, type="subscribe", group="hall"))["code"] == "forbidden", "never granted"

                # What she says is said by her, whatever she says of it.
                message = {"type": "chat.say", "text": "hello", "by": "root"}
                await ada.send(json.dumps({"type": "group_send", "id": 9, "group": "room.7", "message": message}))
                frames = [await frame(ada), await frame(ada)]
                (said,) = [each["message"] for each in frames if each["type"] == "message"]
                assert said == {"type": "chat.said", "by": "ada", "text": "hello"}
                assert [each["id"] for each in frames if each["type"] == "accepted"] == [9]

        run(story())
        wait_for("Django to be told of the end", lambda: counted(gateway, "websocket.disconnect", "ok"))

        # The same session opens an event stream, and after its end nothing.
        events = f"{gateway.url}/v1/events?group=room.7"
        with httpx.stream("GET", events, headers={"cookie": cookie}, timeout=DEADLINE, trust_env=False) as stream:
            assert stream.status_code == 200
            assert next(line for line in stream.iter_lines() if line.startswith("event:")) == "event: subscribed"
        browser.log_out()
    assert refusal(gateway, cookie) == 401
    assert httpx.get(events, headers={"cookie": cookie}, timeout=DEADLINE, trust_env=False).status_code == 401


def test_nobody_gets_in_without_a_session_or_without_django(django, gateway):
    for cookie in [None, "sessionid=forged", "sessionid=", "sessionid=" + "x" * 3000, "other=1"]:
        assert refusal(gateway, cookie) == 401, cookie
    assert httpx.get(f"{gateway.url}/v1/events?group=room.7", timeout=DEADLINE, trust_env=False).status_code == 401
    # Only the gateway may ask.
    event = {"type": "websocket.connect", "scope": {"headers": []}}
    assert django.post("/groupcast/", json=event).status_code == 403
    with Browser(django) as browser:
        browser.log_in("ada", "s3cret")
        cookie = browser.cookie()
    assert refusal(gateway, cookie) is None
    django.kill()
    assert refusal(gateway, cookie) == 503
    assert refusal(gateway, cookie) == 503


def refusal(gateway: Gateway, cookie: str | None) -> int | None:
    """The status by which a handshake is refused; `None` when it is not."""

    async def story():
        try:
            async with socket(gateway, cookie):
                return None
        except websockets.InvalidStatus as error:
            return error.response.status_code

    return asyncio.run(asyncio.wait_for(story(), 2 * DEADLINE))


def socket(gateway: Gateway, cookie: str | None):
    headers = {"Cookie": cookie} if cookie else {}
    return websockets.connect(
        gateway.ws, additional_headers=headers, subprotocols=["groupcast.v1"], proxy=None, open_timeout=DEADLINE
    )


async def ask(client, **command) -> dict:
    await client.send(json.dumps({"id": 1, **command}))
    return await frame(client)


async def frame(client) -> dict:
    return json.loads(await asyncio.wait_for(client.recv(), DEADLINE))


def post(gateway: Gateway, group: str, message: dict) -> None:
    url, headers = f"{gateway.url}/v1/groups/{group}/send", {"authorization": f"Bearer {KEY}"}
    answer = httpx.post(url, json=message, headers=headers, timeout=DEADLINE, trust_env=False)
    assert answer.status_code == 202, answer.text


def counted(gateway: Gateway, event: str, outcome: str) -> bool:
    headers = {"authorization": f"Bearer {KEY}"}
    lines = httpx.get(f"{gateway.url}/metrics", headers=headers, timeout=DEADLINE, trust_env=False).text
    return f'groupcast_hook_calls_total{{event="{event}",outcome="{outcome}"}}' in lines
