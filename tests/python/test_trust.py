"""What docs/security.md says of trust in the broker: whoever may write there may do everything, `[auth]` or not."""

import asyncio

import pytest
import redis as redis_client
import websockets
from brokers import Redis
from channels_redis.core import RedisChannelLayer
from client import DEADLINE, run
from conftest import CONFIG, Gateway, make_database, wait_for

KEY = "k" * 32
MORE = """
[[query]]
id = 30
name = "of_tenant"
source = "shop"
sql = "select :claim_tenant as tenant"
params.claim_tenant = {{ type = "text" }}

[auth]
api_keys_env = "APP_API_KEYS"

[jobs]
single_gateway = true

[layer]
kind = "redis"
url = "{url}"
dialect = "channels_redis.core"
"""


@pytest.fixture
def redis(tmp_path):
    server = Redis(tmp_path / "redis")
    yield server
    server.kill()


def test_what_comes_by_the_broker_needs_no_key_and_may_be_anybody(tmp_path, redis, monkeypatch):
    monkeypatch.setenv("APP_API_KEYS", KEY)
    (tmp_path / "groupcast.toml").write_text(CONFIG + MORE.format(url=redis.url))
    make_database(tmp_path / "shop.db")
    gateway = Gateway(tmp_path)

    async def story():
        with pytest.raises(websockets.InvalidStatus) as refused:
            await websockets.connect(gateway.ws + "?group=my_group", proxy=None)
        assert refused.value.response.status_code == 401
        headers = {"Authorization": f"Bearer {KEY}"}
        async with websockets.connect(gateway.ws + "?group=my_group", additional_headers=headers, proxy=None) as reader:
            layer = RedisChannelLayer(hosts=[redis.url])
            work = {"type": "execute_query", "query": "of_tenant", "params": {"claim_tenant": "anybody"}}
            await asyncio.wait_for(until(reader, '"type":"subscribed"'), DEADLINE)
            await layer.group_send("my_group", work)
            assert '["anybody"]' in await asyncio.wait_for(until(reader, '"type":"job.result"'), DEADLINE)
            # And what is said is there to be read.
            with redis_client.Redis.from_url(redis.url) as client, client.pubsub() as spy:
                spy.psubscribe("*")
                wait_for("the spy to listen", lambda: spy.get_message(timeout=1))
                await reader.send('{"type":"group_send","group":"my_group","message":{"type":"chat","text":"a secret"}}')
                heard = wait_for("the spy to hear", lambda: spy.get_message(ignore_subscribe_messages=True, timeout=1))
                assert b"a secret" in heard["data"]
            await layer.close_pools()

    try:
        run(story())
    finally:
        gateway.kill()
        gateway.reader.join(DEADLINE)


async def until(socket, text: str) -> str:
    while text not in (frame := await socket.recv()):
        pass
    return frame
