"""A few lines around `websockets`, as somebody writes them who has read the protocol's page."""

import asyncio
import json
from contextlib import asynccontextmanager

import websockets

DEADLINE = 20.0


class Client:
    def __init__(self, socket):
        self.socket = socket
        self.channel = None

    async def text(self) -> str:
        frame = await asyncio.wait_for(self.socket.recv(), DEADLINE)
        assert isinstance(frame, str), "frames are text"
        return frame

    async def frame(self) -> dict:
        return json.loads(await self.text())

    async def send(self, **frame) -> None:
        await self.socket.send(json.dumps(frame))

    async def expect(self, kind: str) -> dict:
        frame = await self.frame()
        assert frame["type"] == kind, frame
        return frame

    async def message(self, kind: str) -> dict:
        """The next message of a type, passing over others."""
        while True:
            message = (await self.expect("message"))["message"]
            if message["type"] == kind:
                return message

    async def subscribe(self, group: str) -> None:
        await self.send(type="subscribe", id=1, group=group)
        assert await self.frame() == {"type": "subscribed", "id": 1, "group": group}


@asynccontextmanager
async def connect(gateway, query: str = "", **how):
    async with websockets.connect(gateway.ws + query, subprotocols=["groupcast.v1"], proxy=None, **how) as socket:
        client = Client(socket)
        welcome = await client.expect("welcome")
        assert welcome["protocol"] == socket.subprotocol == "groupcast.v1"
        client.channel = welcome["channel"]
        yield client


def run(story) -> None:
    """Tells a story to its end, or fails at the deadline."""
    asyncio.run(asyncio.wait_for(story, 2 * DEADLINE))
