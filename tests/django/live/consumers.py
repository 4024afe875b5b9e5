"""Consumers of Channels: a socket in a group, and a worker of a named channel."""

from channels.consumer import AsyncConsumer
from channels.generic.websocket import AsyncJsonWebsocketConsumer


class GroupConsumer(AsyncJsonWebsocketConsumer):
    """Shows its client what comes to its group, whatever type it has."""

    async def connect(self):
        self.group = self.scope["url_route"]["kwargs"]["group"]
        await self.channel_layer.group_add(self.group, self.channel_name)
        await self.accept()
        await self.send_json({"type": "welcome", "channel": self.channel_name, "user": self.scope["user"].username})

    async def disconnect(self, code):
        await self.channel_layer.group_discard(self.group, self.channel_name)

    async def receive_json(self, content):
        await self.channel_layer.group_send(self.group, content)

    async def execute_query(self, event):
        await self.send_json(event)

    job_accepted = job_started = job_progress = job_result = job_failed = query_done = chat_message = execute_query


class QueryConsumer(AsyncConsumer):
    """Does the work of `runworker`: answers to the group that the message names."""

    async def execute_query(self, message):
        done = {"type": "query.done", "queryset_id": message["queryset_id"]}
        await self.channel_layer.group_send(message["group"], done)
