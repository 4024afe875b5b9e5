"""Many WebSocket clients in one thread: they count what comes, and when. Just enough of RFC 6455 for that.

Messages are told apart by a number in angle brackets (`<12>`), wherever in a frame it stands, so that every server may wrap them
as it likes.
"""

import select
import socket
import time
from array import array

HANDSHAKE_SECONDS = 30
READ_BYTES = 1 << 18
TEXT, CLOSE, PING = 1, 8, 9


class Crowd:
    """Clients that are connected one after the other and read together."""

    def __init__(self):
        self.poll = select.epoll()
        self.members: dict[int, Member] = {}
        self.closed = 0

    def join(self, port: int, path: str, joined: bytes) -> None:
        """Connects one more; returns when the server has said that it is in its group."""
        member = Member(port, path, joined)
        self.members[member.socket.fileno()] = member
        self.poll.register(member.socket, select.EPOLLIN)

    def expect(self, numbers: range) -> None:
        """What was heard is forgotten, and of what comes only these numbers count."""
        self.numbers = numbers
        self.sent = array("d", [0.0]) * len(numbers)
        self.delays = array("d")
        self.twice = self.heard = 0
        for member in self.members.values():
            member.seen = bytearray(len(numbers))

    def listen(self, is_over) -> None:
        """Takes what comes until `is_over(seconds without anything)` says so."""
        last = time.monotonic()
        while not is_over(time.monotonic() - last):
            for descriptor, _ in self.poll.poll(0.1):
                member = self.members[descriptor]
                try:
                    numbers = member.read()
                except OSError:
                    self.poll.unregister(descriptor)
                    self.closed += 1
                    continue
                if numbers:
                    last = time.monotonic()
                    self._note(member, numbers, last)

    def will_send(self, number: int) -> None:
        """Its delays count from here."""
        self.sent[number - self.numbers.start] = time.monotonic()

    def _note(self, member: "Member", numbers: list[int], now: float) -> None:
        for number in numbers:
            if number not in self.numbers:
                continue
            at = number - self.numbers.start
            if member.seen[at]:
                self.twice += 1
            else:
                member.seen[at] = 1
                self.heard += 1
                self.delays.append(now - self.sent[at])

    def close(self) -> None:
        self.poll.close()
        for member in self.members.values():
            member.socket.close()


class Member:
    def __init__(self, port: int, path: str, joined: bytes):
        self.socket = socket.create_connection(("127.0.0.1", port), HANDSHAKE_SECONDS)
        self.unread = b""
        self.socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        while b"\r\n\r\n" not in self.unread:
            self.unread += self._some()
        head, self.unread = self.unread.split(b"\r\n\r\n", 1)
        assert head.startswith(b"HTTP/1.1 101"), head
        while not any(joined in text for text in self._texts()):
            self.unread += self._some()
        self.socket.setblocking(False)

    def read(self) -> list[int]:
        """The numbers of what has come; OSError when the server has hung up."""
        self.unread += self._some()
        found = []
        for text in self._texts():
            start = text.find(b"<")
            if start >= 0:
                found.append(int(text[start + 1 : text.index(b">", start)]))
        return found

    def _some(self) -> bytes:
        data = self.socket.recv(READ_BYTES)
        if not data:
            raise ConnectionResetError("the server has hung up")
        return data

    def _texts(self) -> list[bytes]:
        """The contents of all text frames that are there as a whole. Servers neither mask nor, what is this short, divide."""
        data, at, texts = self.unread, 0, []
        while len(data) >= at + 2:
            begin, length = at + 2, data[at + 1]
            if length >= 126:
                begin += 2 if length == 126 else 8
                length = int.from_bytes(data[at + 2 : begin], "big")
            end = begin + length
            if len(data) < max(begin, end):
                break
            kind = data[at] & 15
            if kind == TEXT:
                texts.append(data[begin:end])
            elif kind == PING:
                self._answer(data[begin:end])
            elif kind == CLOSE:
                raise ConnectionResetError("the server has closed")
            at = end
        self.unread = data[at:]
        return texts

    def _answer(self, ping: bytes) -> None:
        # The mask is zero, so the content stands as it is.
        self.socket.sendall(bytes([0x8A, 0x80 | len(ping)]) + b"\0\0\0\0" + ping)
