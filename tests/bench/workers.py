#!/usr/bin/env python3
"""How often Django Channels' own workers run a message: the control of `tests/it/django.rs`, which does the same with gateways.

    tests/.venv/bin/python tests/bench/workers.py [MESSAGES] [WORKERS ...]

Starts a redis-server, and in turn so many `runworker`s (1, 2, 4 and 8) on one channel of channels_redis.core, sends the messages
to the channel, and counts runs. It ends when nothing has been run for some seconds.
"""

import asyncio
import collections
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "python")]

from brokers import Redis  # noqa: E402
from channels.consumer import AsyncConsumer  # noqa: E402
from channels.routing import ChannelNameRouter, ProtocolTypeRouter  # noqa: E402
from channels_redis.core import RedisChannelLayer  # noqa: E402

CHANNEL = "db-queries"
# More than a worker waits for a message before it looks again for those that are in flight.
QUIET_SECONDS = 12


class Counter(AsyncConsumer):
    async def execute_query(self, message):
        with open(os.environ["RUNS"], "a", buffering=1, encoding="ascii") as runs:
            runs.write(f"{message['n']}\n")


application = ProtocolTypeRouter({"channel": ChannelNameRouter({CHANNEL: Counter.as_asgi()})})


def main() -> None:
    if sys.argv[1:2] == ["worker"]:
        return work(sys.argv[2])
    messages, *workers = [int(argument) for argument in sys.argv[1:]] or [3000]
    print(f"{'workers':>7} {'messages':>8} {'runs':>6} {'twice or more':>13} {'never':>6}")
    for count in workers or [1, 2, 4, 8]:
        with tempfile.TemporaryDirectory() as folder:
            runs = collections.Counter(measure(Path(folder), messages, count))
        again = sum(times > 1 for times in runs.values())
        print(f"{count:7} {messages:8} {runs.total():6} {again:13} {messages - len(runs):6}", flush=True)


def work(redis: str) -> None:
    """What a worker's process does."""
    import django
    from django.conf import settings
    from django.core.management import call_command

    layer = {"BACKEND": "channels_redis.core.RedisChannelLayer", "CONFIG": {"hosts": [redis]}}
    settings.configure(INSTALLED_APPS=["channels"], ASGI_APPLICATION="workers.application", CHANNEL_LAYERS={"default": layer})
    django.setup()
    call_command("runworker", CHANNEL)


def measure(folder: Path, messages: int, count: int) -> list[str]:
    redis, runs = Redis(folder), folder / "runs"
    runs.touch()
    command = [sys.executable, __file__, "worker", redis.url]
    with (folder / "log").open("w") as log:
        options = {"env": os.environ | {"RUNS": str(runs)}, "stdout": log, "stderr": log}
        workers = [subprocess.Popen(command, **options) for _ in range(count)]
    try:
        # They all have to be there: what is sent first is theirs, too.
        while len(listening(redis)) < count:
            assert all(worker.poll() is None for worker in workers), (folder / "log").read_text()
            time.sleep(0.1)
        asyncio.run(send(redis.url, CHANNEL, messages))
        size, since = 0, time.monotonic()
        while time.monotonic() - since < QUIET_SECONDS:
            time.sleep(0.2)
            if (now := runs.stat().st_size) != size:
                size, since = now, time.monotonic()
        return runs.read_text().split()
    finally:
        for process in [*workers, redis.process]:
            process.kill()
            process.wait()


def listening(redis: Redis) -> list[str]:
    """Connections of workers that wait for a message."""
    answer = subprocess.run(["redis-cli", "-p", str(redis.port), "CLIENT", "LIST"], capture_output=True, text=True, check=True)
    return [line for line in answer.stdout.splitlines() if "cmd=bzpopmin" in line]


async def send(redis: str, channel: str, messages: int) -> None:
    # Nothing is to be dropped at its capacity here.
    layer = RedisChannelLayer(hosts=[redis], capacity=1_000_000)
    for n in range(messages):
        await layer.send(channel, {"type": "execute_query", "n": n})
    await layer.close_pools()


if __name__ == "__main__":
    main()
