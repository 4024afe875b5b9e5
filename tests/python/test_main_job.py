"""The main job as a newcomer does it in Python."""

import asyncio

from client import connect, run


def test_a_line_of_work_comes_back_as_rows(gateway, http):
    async def story():
        async with connect(gateway) as reader:
            await reader.subscribe("my_group")
            answer = http.post("/v1/groups/my_group/send", json={"type": "execute_query", "queryset_id": 7})
            assert answer.status_code == 202
            accepted = answer.json()
            assert accepted["members"] == 1 and len(accepted["jobs"]) == 1
            result = await reader.message("job.result")
            assert result["job"] == accepted["jobs"][0]["id"]
            assert result["result"] == {
                "columns": ["name", "sold"],
                "rows": [["coffee", 42], ["tea", 30]],
                "row_count": 2,
                "truncated": False,
            }

    run(story())


def test_a_chat_message_reaches_everybody(gateway, http):
    async def story():
        async with connect(gateway) as alice, connect(gateway, "?group=chat") as bob:
            await alice.subscribe("chat")
            assert await bob.frame() == {"type": "subscribed", "group": "chat"}
            message = {"type": "chat.message", "text": "hello"}
            await alice.send(type="group_send", id="x", group="chat", message=message)
            frames = sorted([await alice.frame(), await alice.frame()], key=lambda frame: frame["type"])
            assert frames[0]["type"] == "accepted" and frames[0]["id"] == "x" and frames[0]["members"] == 2
            push = {"type": "message", "group": "chat", "message": message}
            assert frames[1] == push and await bob.frame() == push

    run(story())


def test_a_query_is_asked_and_waited_for(http):
    answer = http.post("/v1/queries/top_sellers", json={"at_least": 40}, headers={"prefer": "wait=15"})
    assert answer.status_code == 200
    record = answer.json()
    assert record["state"] == "succeeded"
    assert http.get(record["result"]["url"]).json()["rows"] == [["coffee", 42]]
    csv = http.get(record["result"]["url"], headers={"accept": "text/csv"})
    assert csv.text.splitlines() == ["name,sold", "coffee,42"]


def test_a_hundred_sockets_at_once(gateway, http):
    async def story():
        ready = asyncio.Barrier(101)

        async def follow(n):
            async with connect(gateway) as reader:
                await reader.subscribe("crowd")
                await ready.wait()
                return [(await reader.expect("message"))["message"]["n"] for _ in range(200)]

        async def publish():
            await ready.wait()
            for n in range(200):
                answer = await asyncio.to_thread(http.post, "/v1/groups/crowd/send", json={"type": "tick", "n": n})
                assert answer.json()["members"] == 100

        *seen, _ = await asyncio.gather(*(follow(n) for n in range(100)), publish())
        assert all(numbers == list(range(200)) for numbers in seen)

    run(story())


def test_a_gateway_that_was_killed_is_found_again(gateway, http):
    async def story():
        async with connect(gateway) as reader:
            await reader.subscribe("my_group")
            answer = http.post("/v1/groups/my_group/send", json={"type": "execute_query", "queryset_id": 7, "delay_ms": 1500})
            job = answer.json()["jobs"][0]["id"]
            await asyncio.to_thread(gateway.kill)
        await asyncio.to_thread(gateway.start, gateway.address)
        async with connect(gateway) as reader:
            await reader.subscribe("my_group")
            record = (await asyncio.to_thread(http.get, f"/v1/jobs/{job}?wait=15")).json()
            assert record["state"] == "succeeded", record
            assert (await reader.message("job.result"))["job"] == job

    run(story())


def test_a_drain_says_goodbye_and_when_to_come_back(gateway):
    async def story():
        async with connect(gateway) as reader:
            stopped = asyncio.create_task(asyncio.to_thread(gateway.stop))
            closing = await reader.expect("closing")
            assert isinstance(closing["retry_after_ms"], int)
            await asyncio.wait_for(reader.socket.wait_closed(), 20)
            assert reader.socket.close_code == 1012
            assert await stopped == 0

    run(story())
