"""Sends work by the real channels_redis: `sender.py URL GROUP PARAMETER FIRST COUNT`.

Each message carries its number, from FIRST on, as that parameter of the query.
"""

import asyncio
import sys

from channels_redis.core import RedisChannelLayer


async def send(url: str, group: str, parameter: str, first: int, count: int) -> None:
    # As many as may be in Redis at once: what Django drops at its capacity no gateway can see.
    layer = RedisChannelLayer(hosts=[url], capacity=100_000)
    for n in range(first, first + count):
        await layer.group_send(group, {"type": "execute_query", "queryset_id": 7, "params": {parameter: n}})
    await layer.close_pools()


asyncio.run(send(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])))
