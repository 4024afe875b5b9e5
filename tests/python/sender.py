"""Sends work by the real channels_redis, or channels_nats: `sender.py URL GROUP PARAMETER FIRST COUNT`.

With `pubsub+redis://…` it is the other layer of channels_redis.

Each message carries its number, from FIRST on, as that parameter of the query.
"""

import asyncio
import sys


async def send(url: str, group: str, parameter: str, first: int, count: int) -> None:
    layer, close = layer_of(url)
    for n in range(first, first + count):
        await layer.group_send(group, {"type": "execute_query", "queryset_id": 7, "params": {parameter: n}})
    await close()


def layer_of(url: str):
    # Whoever has one of the packages need not have the other.
    if url.startswith(("nats://", "tls://")):
        from channels_nats import NatsChannelLayer

        # A server that is killed meanwhile is waited for.
        layer = NatsChannelLayer(url.split(","), connect_options={"reconnect_time_wait": 0.1})
        return layer, layer.close
    if url.startswith("pubsub+"):
        from channels_redis.pubsub import RedisPubSubChannelLayer

        layer = RedisPubSubChannelLayer(hosts=[url.removeprefix("pubsub+")])
        return layer, layer.flush
    from channels_redis.core import RedisChannelLayer

    # As many as may be in Redis at once: what Django drops at its capacity no gateway can see.
    layer = RedisChannelLayer(hosts=[url], capacity=100_000)
    return layer, layer.close_pools


asyncio.run(send(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])))
