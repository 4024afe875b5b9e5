#!/usr/bin/env python3
"""Groupcast beside Django Channels: what a delivery costs, and what a burst loses.

    tests/.venv/bin/python tests/bench/beside_channels.py                    # all of it, a quarter of an hour
    tests/.venv/bin/python tests/bench/beside_channels.py --subscribers 100 --paced 10 --burst 200 --only groupcast

Each way in turn: servers are started on free ports, with a redis-server of their own where they share one; so many WebSockets join
one group on each server; the same messages are sent over HTTP to the first server, first paced, one at a time, then as fast as they are
answered. Django's side is the project in tests/django, unchanged, with its default capacity of 100. The binary is
that of GROUPCAST_BIN, or the newest in target/.

CPU is that of the servers' processes (user and system), for each delivery that came, without that of connecting; Redis apart. What
was answered with 202 and did not come to a subscriber is lost. Delays count from the request, and have in them the time that
one Python client takes to read all sockets. The exit code is 0 when Groupcast lost nothing.
"""

import argparse
import http.client
import json
import resource
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "python")]

from brokers import Redis  # noqa: E402
from conftest import Gateway  # noqa: E402
from crowd import Crowd  # noqa: E402
from fleet import Django  # noqa: E402

GROUP = "beside"
PADDING = "x" * 60
# A burst goes over so many connections at once, as from a few processes of a site.
SENDERS = 4
BASE = "groupcast redis/core"


class Groupcast:
    """One gateway in memory, or several over Redis that speak Django's dialect."""

    path, joined, send_path = f"/ws?group={GROUP}", b'"subscribed"', f"/v1/groups/{GROUP}/send"

    def __init__(self, stack: ExitStack, folder: Path, servers: int, broker: bool):
        self.redis = started(stack, Redis, folder / "redis") if broker else None
        layer = f'[layer]\nkind = "redis"\nurl = "{self.redis.url}"\ndialect = "channels_redis.core"\n' if broker else ""
        self.servers = []
        for number in range(servers if broker else 1):
            home = folder / f"gateway{number}"
            home.mkdir()
            (home / "groupcast.toml").write_text(f'[server]\nlisten = "127.0.0.1:0"\nnode = "gw{number}"\n{layer}')
            self.servers.append(started(stack, Gateway, home))
        self.ports = [int(gateway.address.split(":")[1]) for gateway in self.servers]


class Channels:
    """Servers of Django, with consumers of Channels in them."""

    path, joined, send_path = f"/ws/{GROUP}/", b'"welcome"', f"/send/{GROUP}/"

    def __init__(self, stack: ExitStack, folder: Path, servers: int, layer: str, server: str):
        self.redis = started(stack, Redis, folder / "redis")
        self.servers = []
        for number in range(servers):
            home = folder / f"django{number}"
            home.mkdir()
            self.servers.append(started(stack, Django, home, server, LAYER=layer, LAYER_HOSTS=self.redis.url))
        self.ports = [django.port for django in self.servers]


def started(stack: ExitStack, program, *arguments, **options):
    process = program(*arguments, **options)
    stack.callback(process.kill)
    return process


WAYS = {
    "groupcast memory": partial(Groupcast, broker=False),
    BASE: partial(Groupcast, broker=True),
    "channels core/uvicorn": partial(Channels, layer="core", server="uvicorn"),
    "channels core/daphne": partial(Channels, layer="core", server="daphne"),
    "channels pubsub/uvicorn": partial(Channels, layer="pubsub", server="uvicorn"),
    "channels pubsub/daphne": partial(Channels, layer="pubsub", server="daphne"),
}


def main() -> int:
    asked = arguments()
    allow_files()
    print(f"{asked.subscribers} subscribers on each server; {asked.paced} messages every {asked.every} s, then {asked.burst} at once")
    table, faults = Table(), 0
    for name in WAYS:
        if asked.only in name:
            for row in measure(name, asked):
                table.add(row)
                faults += name.startswith("groupcast") and row["lost"] + row["twice"] + row["closed"]
    return int(faults > 0)


def arguments(line: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subscribers", type=int, default=1000, help="WebSockets on each server")
    parser.add_argument("--servers", type=int, default=2, help="servers that share a Redis")
    parser.add_argument("--paced", type=int, default=20, help="messages that are sent at a pace")
    parser.add_argument("--every", type=float, default=1.0, help="seconds between them")
    parser.add_argument("--burst", type=int, default=300, help="messages that are sent as fast as they are answered")
    parser.add_argument("--quiet", type=float, default=10.0, help="seconds without a delivery after which no more come")
    parser.add_argument("--only", default="", help="ways whose names have this in them")
    return parser.parse_args(line)


def measure(name: str, asked: argparse.Namespace):
    """The two phases of one way, each when it has ended."""
    with tempfile.TemporaryDirectory(prefix="groupcast-beside-") as folder, ExitStack() as stack:
        way = WAYS[name](stack, Path(folder), asked.servers)
        crowd = stack.enter_context(closing(Crowd()))
        for _ in range(asked.subscribers):
            for port in way.ports:
                crowd.join(port, way.path, way.joined)
        # What is late of the first phase must not count in the second, so numbers go on.
        paced, burst = range(asked.paced), range(asked.paced, asked.paced + asked.burst)
        for phase, numbers, every in (("paced", paced, asked.every), ("burst", burst, 0.0)):
            yield {"name": name, "phase": phase} | run(way, crowd, numbers, every, asked.quiet)


def run(way, crowd: Crowd, numbers: range, every: float, patience: float) -> dict:
    crowd.expect(numbers)
    servers = [server.process.pid for server in way.servers]
    redis = [way.redis.process.pid] if way.redis else []
    before, redis_before = cpu(servers), cpu(redis)
    sending = Sending(way, crowd, numbers, every)

    def is_over(quiet: float) -> bool:
        return sending.is_over() and (crowd.heard >= sending.accepted * len(crowd.members) or quiet > patience)

    crowd.listen(is_over)
    each = 1e6 / max(crowd.heard, 1)
    delays = sorted(crowd.delays) or [0.0]
    return {
        "cpu": (cpu(servers) - before) * each,
        "redis": (cpu(redis) - redis_before) * each,
        "sent": sending.accepted,
        "came": crowd.heard,
        "lost": sending.accepted * len(crowd.members) - crowd.heard,
        "twice": crowd.twice,
        "closed": crowd.closed,
        "p50": delays[len(delays) // 2] * 1e3,
        "p99": delays[int((len(delays) - 1) * 0.99)] * 1e3,
    }


class Table:
    """Rows as they come, and how many times as dear each is as Groupcast over Redis, Redis included."""

    def __init__(self):
        self.bases: dict[str, float] = {}
        print(f"{'':25} {'':6} {'us CPU':>8} {'Redis':>8} {'times':>7} {'sent':>5} {'came':>8} {'lost':>8} {'twice':>6} {'closed':>6}"
              f" {'p50 ms':>8} {'p99 ms':>8}")

    def add(self, row: dict) -> None:
        cost = row["cpu"] + row["redis"]
        if row["name"] == BASE:
            self.bases[row["phase"]] = cost
        base = self.bases.get(row["phase"])
        print(f"{row['name']:25} {row['phase']:6} {row['cpu']:8.2f} {row['redis']:8.2f} {f'{cost / base:.1f}' if base else '':>7}"
              f" {row['sent']:5} {row['came']:8} {row['lost']:8} {row['twice']:6} {row['closed']:6}"
              f" {row['p50']:8.1f} {row['p99']:8.1f}", flush=True)


class Sending:
    """Threads that send all messages: one at a pace, or several as fast as they are answered."""

    def __init__(self, way, crowd: Crowd, numbers: range, every: float):
        self.way, self.crowd, self.every = way, crowd, every
        self.accepted = 0
        self.lock = threading.Lock()
        self.due = iter(enumerate(numbers))
        self.began = time.monotonic()
        self.threads = [threading.Thread(target=self._send, daemon=True) for _ in range(1 if every else SENDERS)]
        for thread in self.threads:
            thread.start()

    def is_over(self) -> bool:
        return not any(thread.is_alive() for thread in self.threads)

    def _send(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.way.ports[0], timeout=120)
        while due := self._next():
            turn, number = due
            time.sleep(max(0.0, self.began + turn * self.every - time.monotonic()))
            body = json.dumps({"type": "chat.message", "mark": f"<{number}>", "text": PADDING})
            self.crowd.will_send(number)
            connection.request("POST", self.way.send_path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            with self.lock:
                self.accepted += answer.status == 202
        connection.close()

    def _next(self) -> tuple[int, int] | None:
        with self.lock:
            return next(self.due, None)


def allow_files() -> None:
    """Lets this process, and the servers that it starts, have as many sockets as the system allows."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def cpu(processes: list[int]) -> float:
    """Seconds that processes have computed, with all their threads. A process's CPU clock (clock_getcpuclockid(3)) counts
    nanoseconds where /proc/PID/stat has hundredths, and a short run of a cheap server takes few of those."""
    return sum(time.clock_gettime((~process << 3) | 2) for process in processes)


if __name__ == "__main__":
    sys.exit(main())
