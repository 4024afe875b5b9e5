"""The example in examples/django, run as its README says: a real Django does the work of a consumer."""

import asyncio
import re
import shlex
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from client import connect, run
from conftest import DEADLINE, Gateway, wait_for

EXAMPLE = Path(__file__).parents[2] / "examples/django"
README = (EXAMPLE / "README.md").read_text()
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def test_the_view_returns_and_the_rows_come_to_the_group(django, gateway):
    async def story():
        async with connect(gateway) as reader:
            await reader.subscribe("my_group")
            answer = await asyncio.to_thread(django.get, "/reports/7/")
            assert (answer.status_code, answer.json()) == (202, {"status": "accepted"})
            result = await reader.message("job.result")
            rows = django.rows(
                "select origin, dest, count(*), avg(delay) from flights_flight where origin = 'JFK'"
                " group by origin, dest order by avg(delay) desc, dest"
            )
            columns = ["origin", "dest", "flights", "delay"]
            assert rows and result["result"] == {"columns": columns, "rows": rows, "row_count": len(rows)}

    run(story())


def test_the_view_does_not_wait_for_the_query(django, gateway, http):
    async def story():
        async with connect(gateway) as reader:
            await reader.subscribe("my_group")
            with django.locked():
                # As long as the table is locked, the query cannot end; the view's answer comes all the same.
                assert (await asyncio.to_thread(django.get, "/reports/7/")).status_code == 202
                started = await reader.message("job.started")
                assert http.get(f"/v1/jobs/{started['job']}").json()["state"] == "running"
            assert (await reader.message("job.result"))["job"] == started["job"]

    run(story())


def test_django_may_die_over_its_work(django, gateway, http):
    with django.locked():
        assert django.get("/reports/7/").status_code == 202
        job = wait_for("the job to be running", lambda: running(http))
        django.kill()
        wait_for("the attempt to fail", lambda: http.get(f"/v1/jobs/{job}").json()["error"])
    django.start()
    record = http.get(f"/v1/jobs/{job}?wait=60", timeout=80).json()
    assert record["state"] == "succeeded" and record["attempt"] > 1, record


def test_nobody_has_to_listen(django, http):
    assert django.get("/reports/8/").status_code == 202
    (record,) = http.get("/v1/jobs?consumer=django").json()["jobs"]
    record = http.get(f"/v1/jobs/{record['id']}?wait=20", timeout=40).json()
    assert record["state"] == "succeeded", record
    rows = django.rows(
        "select carrier, origin, dest, delay from flights_flight where delay > 60 order by delay desc, id"
    )
    assert http.get(record["result"]["url"]).json()["rows"] == rows


def test_what_django_refuses_is_dead_for_the_reason_it_gives(django, http):
    assert django.get("/reports/9/").status_code == 202
    (record,) = http.get("/v1/jobs?consumer=django").json()["jobs"]
    record = http.get(f"/v1/jobs/{record['id']}?wait=20", timeout=40).json()
    assert (record["state"], record["error"]["code"]) == ("dead", "unknown_queryset"), record
    (reason,) = http.get("/v1/jobs/dead").json()["reasons"]
    assert (reason["consumer"], reason["code"], reason["jobs"]) == ("django", "unknown_queryset", 1)


def test_django_takes_jobs_from_groupcast_alone(django):
    body = b'{"job":"x","message":{"queryset_id":7}}'
    headers = {"webhook-id": "x", "webhook-timestamp": "1", "webhook-signature": "v1,AAAA"}
    for headers in ({}, headers):
        answer = httpx.post(f"{django.url}/jobs/", content=body, headers=headers, timeout=DEADLINE, trust_env=False)
        assert (answer.status_code, answer.json()["code"]) == (401, "bad_signature")


def test_the_layer_sends_as_channels_says(django, gateway, http):
    code = """
from asgiref.sync import async_to_sync
from channels.exceptions import ChannelFull
from channels.layers import get_channel_layer
layer = get_channel_layer()
for _ in range(2):
    async_to_sync(layer.group_add)("room", "mailbox")
async_to_sync(layer.group_send)("room", {"type": "chat.message", "text": "hello"})
try:
    for _ in range(1000):
        async_to_sync(layer.send)("mailbox", {"type": "x"})
except ChannelFull:
    print("full as it should be")
for _ in range(2):
    async_to_sync(layer.group_discard)("room", "mailbox")
try:
    async_to_sync(layer.group_send)("my_group", {"type": "job.started"})
except Exception as error:
    print(type(error).__name__, error.code)
"""
    told = manage(django.folder, "shell", "--no-imports", "-c", code)
    assert told.splitlines() == ["full as it should be", "GroupcastError forbidden"], told
    assert http.get("/v1/groups/room").json()["members"] == 0


def test_the_examples_versions_are_the_ones_that_are_tested():
    tested = (Path(__file__).parent / "requirements.txt").read_text().split()
    assert set((EXAMPLE / "requirements.txt").read_text().split()) <= set(tested)


def running(http):
    jobs = http.get("/v1/jobs?state=running").json()["jobs"]
    return jobs and jobs[0]["id"]


def documented(beginning: str) -> list[str]:
    """The words of the README's one command that begins so."""
    (line,) = re.findall(rf"^{re.escape(beginning)}.*$", README, re.MULTILINE)
    return shlex.split(line)


def manage(folder: Path, *arguments: str) -> str:
    """What Django's command line prints."""
    command = [sys.executable, "manage.py", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=2 * DEADLINE)
    assert done.returncode == 0, done.stderr
    return done.stdout


class Django:
    """Django's own server over a copy of the example."""

    def __init__(self, folder: Path):
        self.folder = folder
        # Held so that nobody gets the port while Django is away. It does not listen.
        self.port_holder = socket.socket()
        self.port_holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.port_holder.bind(("127.0.0.1", 0))
        self.port = self.port_holder.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        command = documented("python manage.py runserver")
        assert command[-1] == "127.0.0.1:8001"
        command = [sys.executable, "-W", "ignore", *command[1:-1], f"127.0.0.1:{self.port}"]
        with (self.folder / "django.log").open("a") as log:
            self.process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log)
        wait_for("Django to listen", self._listens)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(DEADLINE)

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, timeout=DEADLINE, trust_env=False)

    def rows(self, sql: str) -> list[list]:
        database = sqlite3.connect(self.folder / "airline.db")
        rows = [list(row) for row in database.execute(sql)]
        database.close()
        return rows

    def locked(self):
        return Locked(self.folder / "airline.db")

    def _listens(self) -> bool:
        log = (self.folder / "django.log").read_text()
        assert self.process.poll() is None, log
        try:
            return self.get("/jobs/").status_code == 405
        except httpx.TransportError:
            return False


class Locked:
    """While this holds, every query of the file waits."""

    def __init__(self, path: Path):
        self.database = sqlite3.connect(path, isolation_level=None)

    def __enter__(self):
        self.database.execute("begin exclusive")

    def __exit__(self, *_):
        self.database.execute("rollback")
        self.database.close()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A copy of the example with its data."""
    folder = tmp_path_factory.mktemp("prepared") / "example"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("*.db", "__pycache__"))
    for command in ("python manage.py migrate", "python manage.py load_flights"):
        manage(folder, *documented(command)[2:])
    return folder


@pytest.fixture
def django(prepared, tmp_path, monkeypatch):
    """The example; its server runs once the gateway does."""
    folder = tmp_path / "example"
    shutil.copytree(prepared, folder)
    server = Django(folder)
    config = (folder / "groupcast.toml").read_text()
    assert config.count(":8001/") == 1
    (folder / "groupcast.toml").write_text(config.replace(":8001/", f":{server.port}/"))
    monkeypatch.setenv("JOBS_SECRET", SECRET)
    assert documented("groupcast serve")[1:] == ["serve", "--config", "groupcast.toml"]
    server.gateway = Gateway(folder)
    monkeypatch.setenv("GROUPCAST_URL", server.gateway.url)
    server.start()
    yield server
    for process in (server.process, server.gateway.process):
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.wait(DEADLINE)
    server.port_holder.close()
    server.gateway.reader.join(DEADLINE)
    panics = [line for line in server.gateway.lines if "panicked at" in line]
    assert not panics, f"the gateway panicked: {panics}"


@pytest.fixture
def gateway(django):
    """In place of the common one: the gateway with the example's own configuration."""
    return django.gateway
