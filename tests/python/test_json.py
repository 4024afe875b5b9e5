"""What is sent comes out as it went in, byte for byte; values of SQL keep their type."""

import json

import pytest

from client import connect, run

MESSAGES = [
    '{"type":"x","text":"Grüße 🦀 \\u0000 \\ud83e\\udd80"}',
    '{"type":"x","big":123456789012345678901234567890,"small":1e-400,"zero":-0.0}',
    '{"type":"x","spaces" : [ 1 , 2 ],"escaped\\u0020key":"a\\/b"}',
    '{"type":"x","twice":1,"twice":2}',
    '{"nested":{"type":"not this"},"type":"x"}',
    '{"type":"\\u0078","empty":{},"list":[[],[[]],null,true,false,""]}',
    '{"type":"x","line":"\u2028\u2029","html":"<script>&amp;</script>"}',
]


@pytest.mark.parametrize("text", MESSAGES)
def test_a_message_passes_through_byte_for_byte(gateway, http, text):
    async def story():
        async with connect(gateway) as reader:
            await reader.subscribe("raw")
            sent = http.post("/v1/groups/raw/send", content=text.encode(), headers={"content-type": "application/json"})
            assert sent.status_code == 202, sent.text
            assert text in await reader.text()
            await reader.socket.send('{"type":"group_send","group":"raw","message":' + text + "}")
            frames = [await reader.text(), await reader.text()]
            assert any(text in frame for frame in frames), frames

    run(story())


@pytest.mark.parametrize(
    "text", ['{"type":"x","n":NaN}', '{"type":"x",}', "{'type':'x'}", '{"type":"x"', '{"type":"\\ud800"}', '{"type":"x","t":"\t"}', "\ufeff{}"]
)
def test_what_is_no_json_is_refused(http, text):
    answer = http.post("/v1/groups/raw/send", content=text.encode(), headers={"content-type": "application/json"})
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "invalid_message"


def test_deep_nesting_hurts_nobody(http):
    deep = '{"type":"x","d":' + "[" * 100_000 + "]" * 100_000 + "}"
    answer = http.post("/v1/groups/raw/send", content=deep, headers={"content-type": "application/json"})
    assert answer.status_code in (202, 422), answer.text
    assert http.get("/healthz").status_code == 200


def test_values_of_sql_keep_their_type(http):
    record = http.post("/v1/queries/kinds", json={}, headers={"prefer": "wait=15"}).json()
    result = http.get(record["result"]["url"])
    assert result.json()["rows"] == [
        [None, 2**63 - 1, 0.1, 'Grüße, "Welt"\n\t\u0001 🦀'],
        [None, -(2**63), 1e300, ""],
        [None, 0, -0.5, "null"],
    ]
    kinds = [[type(value) for value in row] for row in result.json()["rows"]]
    assert kinds == [[type(None), int, float, str]] * 3


@pytest.mark.parametrize(
    "given",
    [
        {"t": "", "i": 0, "r": 0.5, "b": True},
        {"t": "'; drop table goods; --", "i": -(2**63), "r": 1e300, "b": False},
        {"t": "🦀 \u0000 ü", "i": 2**63 - 1, "r": -0.25, "b": True},
    ],
)
def test_parameters_arrive_as_they_are(http, given):
    record = http.post("/v1/queries/echo", json=given, headers={"prefer": "wait=15"}).json()
    assert record["state"] == "succeeded", record
    rows = http.get(record["result"]["url"]).json()["rows"]
    assert rows == [[given["t"], given["i"], given["r"], int(given["b"])]]
    assert http.post("/v1/queries/top_sellers", json={}, headers={"prefer": "wait=15"}).json()["state"] == "succeeded"


@pytest.mark.parametrize(
    "wrong",
    [{"i": 2**63}, {"i": 1.5}, {"i": "1"}, {"i": None}, {"t": 1}, {"r": "x"}, {"b": 1}, {"b": "true"}, {"z": 1}],
)
def test_parameters_of_another_type_are_refused(http, wrong):
    given = {"t": "", "i": 0, "r": 0, "b": True} | wrong
    answer = http.post("/v1/queries/echo", content=json.dumps(given), headers={"content-type": "application/json"})
    assert answer.status_code == 422, answer.text
    assert answer.json()["code"] == "bad_params"
    assert next(iter(wrong)) in answer.json()["detail"]
