"""Servers that a test starts for itself, on free ports, and ends by their process ids."""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

DEADLINE = 20.0


class Redis:
    """A redis-server in a folder of its own."""

    def __init__(self, folder: Path, *arguments: str):
        self.folder = folder
        self.arguments = arguments
        self.port = free_port()
        folder.mkdir(parents=True, exist_ok=True)
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), "--save", ""]
        self.process = subprocess.Popen([*command, *self.arguments], stdout=subprocess.DEVNULL)
        await_port(self.process, self.port)

    def kill(self) -> None:
        kill(self.process)


class Nats:
    """A nats-server with JetStream in a folder of its own."""

    def __init__(self, folder: Path, *arguments: str):
        self.folder = folder
        self.arguments = arguments
        self.port = free_port()
        folder.mkdir(parents=True, exist_ok=True)
        self.start()

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> None:
        server = Path(sys.executable).with_name("nats-server")
        command = [server, "-a", "127.0.0.1", "-p", str(self.port), "-js", "-sd", str(self.folder / "jetstream")]
        self.process = subprocess.Popen([*command, *self.arguments], stderr=subprocess.DEVNULL)
        await_port(self.process, self.port)

    def kill(self) -> None:
        kill(self.process)


def await_port(process: subprocess.Popen, port: int) -> None:
    until = time.monotonic() + DEADLINE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            assert time.monotonic() < until and process.poll() is None, f"{process.args[0]} does not listen"
            time.sleep(0.01)


def kill(process: subprocess.Popen) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGKILL)
    process.wait(DEADLINE)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]
