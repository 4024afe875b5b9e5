"""Starts the real gateway for each test. Nothing here is shared with the gateway or with the tests in Rust."""

import os
import re
import signal
import sqlite3
import subprocess
import threading
import time
from pathlib import Path

import httpx
import pytest

DEADLINE = 20.0

CONFIG = """
[server]
listen = "127.0.0.1:0"
data_dir = "data"

[source.shop]
kind = "sqlite"
path = "shop.db"

[[query]]
id = 7
name = "top_sellers"
source = "shop"
sql = "select name, sold from goods where sold >= :at_least order by sold desc"
params.at_least = { type = "integer", min = 0, default = 1 }

[[query]]
id = 8
name = "echo"
source = "shop"
sql = "select :t as t, :i as i, :r as r, :b as b"
params.t = { type = "text" }
params.i = { type = "integer" }
params.r = { type = "real" }
params.b = { type = "boolean" }

[[query]]
id = 9
name = "kinds"
source = "shop"
sql = "select missing, whole, fraction, words from kinds order by rowid"

[[consumer]]
name = "queries"
group = "my_group"
type = "execute_query"
run = "query"
"""


class Gateway:
    """A running gateway in a folder of its own."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.lines: list[str] = []
        self.process: subprocess.Popen | None = None
        self.start()

    def start(self, listen: str = "127.0.0.1:0") -> None:
        env = {k: v for k, v in os.environ.items() if not k.startswith("GROUPCAST_")}
        command = [binary(), "serve", "--config", "groupcast.toml", "--listen", listen]
        self.lines = []
        self.process = subprocess.Popen(
            command, cwd=self.folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.reader = threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True)
        self.reader.start()
        self.address = wait_for("the gateway to tell its address", self._address)
        wait_for("the gateway to be ready", self._ready)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(DEADLINE)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE + 10)

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    @property
    def ws(self) -> str:
        return f"ws://{self.address}/ws"

    def _read(self, stream) -> None:
        with stream:
            for line in stream:
                self.lines.append(line)

    def _address(self):
        assert self.process.poll() is None, "the gateway ended:\n" + "".join(self.lines)
        found = re.search(r"http://(127\.0\.0\.1:\d+)", "".join(self.lines))
        return found and found.group(1)

    def _ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False


def binary() -> str:
    path = os.environ.get("GROUPCAST_BIN")
    if not path:
        target = Path(os.environ.get("CARGO_TARGET_DIR", Path(__file__).parents[2] / "target"))
        built = [p for p in (target / "release/groupcast", target / "debug/groupcast") if p.is_file()]
        assert built, "no binary: run `cargo build`, or name one with GROUPCAST_BIN"
        path = str(max(built, key=lambda p: p.stat().st_mtime))
    assert Path(path).is_file(), f"GROUPCAST_BIN is {path}, and there is no such file"
    return path


def wait_for(what: str, look):
    """Looks again and again until there is something to see."""
    until = time.monotonic() + DEADLINE
    while time.monotonic() < until:
        seen = look()
        if seen:
            return seen
        time.sleep(0.02)
    raise AssertionError(f"waited {DEADLINE} s for {what}")


def make_database(path: Path) -> None:
    database = sqlite3.connect(path)
    database.execute("create table goods (name text, sold integer)")
    database.executemany("insert into goods values (?, ?)", [("tea", 30), ("coffee", 42), ("mate", 0)])
    database.execute("create table kinds (missing, whole integer, fraction real, words text)")
    rows = [(None, 2**63 - 1, 0.1, 'Grüße, "Welt"\n\t\u0001 🦀'), (None, -(2**63), 1e300, ""), (None, 0, -0.5, "null")]
    database.executemany("insert into kinds values (?, ?, ?, ?)", rows)
    database.commit()
    database.close()


@pytest.fixture
def gateway(tmp_path):
    (tmp_path / "groupcast.toml").write_text(CONFIG)
    make_database(tmp_path / "shop.db")
    running = Gateway(tmp_path)
    yield running
    if running.process.poll() is None:
        running.kill()
    running.reader.join(DEADLINE)
    panics = [line for line in running.lines if "panicked at" in line]
    assert not panics, f"the gateway panicked: {panics}"


@pytest.fixture
def http(gateway):
    # Nothing of the environment: a proxy is for the way out into the world.
    with httpx.Client(base_url=gateway.url, timeout=DEADLINE, trust_env=False) as client:
        yield client
