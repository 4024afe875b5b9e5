"""The measurement beside Django Channels (tests/bench/beside_channels.py), small: it counts right, and Groupcast loses nothing."""

import socket
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest
from conftest import DEADLINE

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))

from beside_channels import WAYS, arguments, measure  # noqa: E402
from crowd import Crowd  # noqa: E402

SMALL = "--subscribers 20 --paced 3 --every 0.1 --burst 150".split()


@pytest.mark.parametrize("name", [name for name in WAYS if name.startswith("groupcast")])
def test_groupcast_loses_nothing(name):
    servers = 1 if "memory" in name else 2
    paced, burst = measure(name, arguments(SMALL))
    for row, messages in ((paced, 3), (burst, 150)):
        assert (row["sent"], row["came"]) == (messages, messages * 20 * servers), row
        assert (row["lost"], row["twice"], row["closed"]) == (0, 0, 0), row
        assert row["cpu"] > 0 and (row["redis"] > 0) == ("redis" in name) and 0 < row["p50"] <= row["p99"], row


@pytest.mark.parametrize("name", ["channels core/daphne", "channels pubsub/uvicorn"])
def test_channels_gets_what_it_can_take(name):
    for row in measure(name, arguments([*SMALL, "--quiet", "2"])):
        assert row["sent"] == {"paced": 3, "burst": 150}[row["phase"]], row
        # What is beyond its capacity it drops, and how much that is depends on the machine.
        assert row["came"] + row["lost"] == row["sent"] * 40 and row["came"] > 0, row
        assert (row["twice"], row["closed"]) == (0, 0) and row["cpu"] > 0, row


def test_a_loss_a_repeat_and_a_hang_up_are_seen():
    # Of five messages the third is missing and the fifth comes twice, and there is an old one; then the server is gone.
    frames = [frame(b'{"a":"<10>"}'), b"\x89\x02hi", frame(b"<11>"), frame(b"x" * 300 + b"<13>"), frame(b"<14>"), frame(b"<14>"), frame(b"<9>")]
    server = Server(b"".join(frames))
    with closing(Crowd()) as crowd:
        crowd.join(server.port, "/", b"joined")
        crowd.expect(range(10, 15))
        server.may_go_on.set()
        crowd.listen(lambda quiet: crowd.closed == 1 or quiet > DEADLINE)
        (member,) = crowd.members.values()
        assert member.seen == b"\1\1\0\1\1"
        assert (crowd.heard, crowd.twice, crowd.closed, len(crowd.delays)) == (4, 1, 1, 4)
    server.thread.join(DEADLINE)
    assert server.pong == b"\x8a\x82\0\0\0\0hi"


def frame(text: bytes) -> bytes:
    length = bytes([len(text)]) if len(text) < 126 else b"\x7e" + len(text).to_bytes(2, "big")
    return b"\x81" + length + text


class Server:
    """Takes one client, says what it is given to say, and hangs up."""

    def __init__(self, said: bytes):
        self.said, self.pong = said, b""
        self.may_go_on = threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        with self.listener, self.listener.accept()[0] as client:
            client.settimeout(DEADLINE)
            request = b""
            while b"\r\n\r\n" not in request:
                request += client.recv(4096)
            client.sendall(b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + frame(b"joined"))
            self.may_go_on.wait(DEADLINE)
            # Divided where no frame ends, so that some is left for the next read.
            for at in range(0, len(self.said), 7):
                client.sendall(self.said[at : at + 7])
            self.pong = client.recv(8)
