"""Sends work by the real channels_redis: `sender.py URL GROUP COUNT`. Prints how many it sent."""

import asyncio
import sys

from channels_redis.core import RedisChannelLayer


async def send(url: str, group: str, count: int) -> None:
    # As many as may be in Redis at once: what Django drops at its capacity no gateway can see.
    layer = RedisChannelLayer(hosts=[url], capacity=100_000)
    for n in range(count):
        await layer.group_send(group, {"type": "execute_query", "queryset_id": 7, "n": n})
    await layer.close_pools()
    print(count)


asyncio.run(send(sys.argv[1], sys.argv[2], int(sys.argv[3])))
