"""A channel layer for Django Channels that sends through Groupcast's HTTP API.

It is for code that *sends*: views, commands, signals. Connections are held by Groupcast itself, so there is nothing here to
receive with, and `new_channel` and `receive` say so.
"""

import asyncio
import json
import urllib.error
import urllib.request
from urllib.parse import quote

from channels.exceptions import ChannelFull
from channels.layers import BaseChannelLayer
from django.core.serializers.json import DjangoJSONEncoder

# Nothing of the environment: a proxy is for the way out into the world.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class GroupcastError(Exception):
    """Groupcast refused, and says why; `code` is for programs."""

    def __init__(self, code, detail):
        super().__init__(f"{code}: {detail}")
        self.code = code


class GroupcastChannelLayer(BaseChannelLayer):
    """`CHANNEL_LAYERS = {"default": {"BACKEND": "groupcast_layer.GroupcastChannelLayer", "CONFIG": {"url": ...}}}`

    `url` is Groupcast's address, `token` an API key if it wants one, `timeout` the seconds one call may take.
    """

    extensions = ["groups"]

    def __init__(self, url, token=None, timeout=10.0):
        super().__init__()
        self.url = url.rstrip("/")
        self.headers = {"Content-Type": "application/json"}
        if token:
            self.headers["Authorization"] = f"Bearer {token}"
        self.timeout = timeout

    async def group_send(self, group, message):
        """Sends to every channel in a group, or to the consumer that claims the message. When it returns, Groupcast has it."""
        self.require_valid_group_name(group)
        await self._call("POST", f"/v1/groups/{quote(group)}/send", message)

    async def send(self, channel, message):
        """Sends to one channel. `ChannelFull` when it has no room."""
        self.require_valid_channel_name(channel)
        await self._call("POST", f"/v1/channels/{quote(channel)}/send", message)

    async def group_add(self, group, channel):
        """Adds a channel to a group."""
        self.require_valid_group_name(group)
        self.require_valid_channel_name(channel)
        await self._call("PUT", f"/v1/groups/{quote(group)}/members/{quote(channel)}")

    async def group_discard(self, group, channel):
        """Removes a channel from a group; one that is not in it is fine."""
        self.require_valid_group_name(group)
        self.require_valid_channel_name(channel)
        try:
            await self._call("DELETE", f"/v1/groups/{quote(group)}/members/{quote(channel)}")
        except GroupcastError as error:
            if error.code != "not_found":
                raise

    async def new_channel(self, prefix="specific"):
        """Not here."""
        raise NotImplementedError("connections are held by Groupcast; let clients connect to its /ws")

    async def receive(self, channel):
        """Not here."""
        raise NotImplementedError('messages are received by Groupcast; take them with `run = "http"`, or at its /ws')

    async def _call(self, method, path, message=None):
        # A thread of its own for each call: the standard library knows no other way.
        await asyncio.to_thread(self._request, method, path, message)

    def _request(self, method, path, message):
        body = None if message is None else json.dumps(message, cls=DjangoJSONEncoder).encode()
        request = urllib.request.Request(self.url + path, data=body, headers=self.headers, method=method)
        try:
            with OPENER.open(request, timeout=self.timeout) as answer:
                answer.read()
        except urllib.error.HTTPError as error:
            with error:
                raise _refusal(error.code, error.read()) from None


def _refusal(status, body):
    try:
        problem = json.loads(body)
        code, detail = problem["code"], problem["detail"]
    except (ValueError, TypeError, KeyError):
        code, detail = "unknown", f"the answer was {status}, and not of Groupcast"
    return ChannelFull(detail) if code == "channel_full" else GroupcastError(code, detail)
