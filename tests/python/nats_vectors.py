"""What channels_nats publishes and subscribes to, as golden files for the dialect of the same name.

`python tests/python/nats_vectors.py` writes channel-layer/vectors/channels_nats.json anew; `test_nats_vectors.py` looks
whether it is still what the package does.
"""

import asyncio
import json
from pathlib import Path

from channels_nats import NatsChannelLayer
from channels_vectors import SENT, bytes_of

FILE = Path(__file__).parents[2] / "channel-layer/vectors/channels_nats.json"
PROCESS = "fee616d42487"
MESSAGE = '{"type":"execute_query","queryset_id":42}'
NAMES = ["my_group", "room.1.x", "-_", "g" * 99]
CHANNELS = ["db-queries", "import.csv", "specific.gw1!c12", "specific.gw.1!c1", f"specific.{PROCESS}!00ff"]


class Client:
    """Notes what a client of NATS is asked to do."""

    is_closed = False
    max_payload = 1 << 20

    def __init__(self):
        self.published, self.subscribed = [], []

    async def publish(self, subject, payload, headers=None):
        self.published.append({"subject": subject, "headers": headers or {}, "payload": payload.hex()})

    async def subscribe(self, subject, queue="", cb=None):
        self.subscribed.append({"subject": subject, "queue": queue})

    async def flush(self):
        pass


def vectors() -> dict:
    return asyncio.run(noted())


async def noted() -> dict:
    layer, client = NatsChannelLayer(), Client()

    async def connected():
        return client

    layer._client = connected
    layer._state().client_id = PROCESS
    published, subscribed = [], []
    for name in NAMES:
        published.append(await one(client, "group_send", name, MESSAGE, layer.group_send))
    for channel in CHANNELS:
        published.append(await one(client, "send", channel, MESSAGE, layer.send))
    for text, recipients in SENT:
        if recipients is None:
            published.append(await one(client, "group_send", "my_group", text, layer.group_send))
    channel = await layer.new_channel()
    await layer.group_add("room.1", channel)
    await layer.group_add("room.1", "db-queries")
    subscribed.extend(client.subscribed)
    return {"published": published, "subscribed": subscribed}


async def one(client, do: str, to: str, text: str, call) -> dict:
    await call(to, json.loads(text, object_hook=bytes_of))
    return {"do": do, "to": to, "json": text} | client.published.pop()


if __name__ == "__main__":
    FILE.write_text(json.dumps(vectors(), indent=1, ensure_ascii=True) + "\n")
