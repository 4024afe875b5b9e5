"""What channels_redis writes and reads, as golden files for the codec of the channel layer.

`python tests/python/channels_vectors.py` writes channel-layer/vectors/channels_redis.json anew; `test_channels_vectors.py`
looks whether it is still what the packages do.
"""

import base64
import json
import math
from pathlib import Path

from channels_redis.serializers import registry

FILE = Path(__file__).parents[2] / "channel-layer/vectors/channels_redis.json"
RESERVED = "__asgi_channel__"

# JSON of ours, and whom the frame is for.
SENT = [
    ('{"type":"execute_query","queryset_id":42}', None),
    ('{"type":"execute_query","queryset_id":42}', ["specific.gw1!g7"]),
    ('{"type":"execute_query","queryset_id":42}', "specific.gw1!c12"),
    ('{"type":"x","many":[]}', ["specific.gw1!c%d" % n for n in range(17)]),
    ('{"type":"chat.message","text":"hi","n":-1,"f":1.5,"l":[1,null,true,false],"t":{"a":{}}}', None),
    ('{ "type" : "x" ,\n"l" : [ ] , "o" : { } , "n" : [ [ ] , [ 1 , [ 2 ] ] ] }', None),
    ('{"type":"x","text":"Gr\\u00fc\\u00dfe \\ud83e\\udd80 \\"\\\\\\/\\b\\f\\n\\r\\t\\u0000","\\u0061b":"ü🦀"}', None),
    ('{"type":"x","b":{"$bytes":"AP8="},"e":{"$bytes":""},"not":{"$bytes":"?"},"two":{"$bytes":"","a":1},"n":{"$bytes":1}}', None),
    ('{"type":"x","f":[0.0,-0.0,1e2,1E-7,5e-324,1.7976931348623157e308,0.1,123456789.125,1e400,-1e400]}', None),
    ('{"type":"x","zero":-0,"i":%s}' % json.dumps(
        [s * 2**n + d for n in (0, 4, 5, 7, 8, 15, 16, 31, 32, 62) for s in (1, -1) for d in (-1, 0, 1)]
        + [2**63 - 1, 2**63, 2**64 - 1, -(2**63)]), None),
    *[(json.dumps({"type": "x", "s": "s" * n}), None) for n in (0, 31, 32, 255, 256)],
    *[(json.dumps({"type": "x", "l": [0] * n}), None) for n in (15, 16)],
    *[(json.dumps({"type": "x"} | {"k%d" % i: i for i in range(n)}), "specific.gw1!c") for n in (13, 14, 15)],
    *[(json.dumps({"type": "x", "m": {"k%d" % i: i for i in range(n)}}), None) for n in (15, 16)],
    *[('{"type":"x","b":{"$bytes":"%s"}}' % base64.b64encode(b"\x07" * n).decode(), None) for n in (255, 256)],
]

# What is too long to be kept as text: the member `v` is this often this, and the head of the message is all that is kept.
LONG = [("s", "s"), ("l", [0]), ("m", None), ("b", b"\x07")]
LENGTHS = [65535, 65536]

# Python's messages, and the JSON of ours that they are.
RECEIVED = [
    ({"type": "x", "b": b"\x00\xff", "t": (1, 2), "nan": math.nan, "inf": [math.inf, -math.inf]},
     '{"type":"x","b":{"$bytes":"AP8="},"t":[1,2],"nan":null,"inf":[null,null]}'),
    ({RESERVED: "specific.gw1!c12", "type": "x", "a": 1.0}, '{"type":"x","a":1.0}'),
    ({"type": "x", RESERVED: ["a", "specific.é!ü"], "a": 1e16, "b": 1e-7}, '{"type":"x","a":1e16,"b":1e-7}'),
    ({"type": "x", "a": {RESERVED: 1, "type": 2}}, '{"type":"x","a":{"%s":1,"type":2}}' % RESERVED),
    ({"type": "x", "c": "\u0000\u001f\u007f\u2028\"\\"}, '{"type":"x","c":"\\u0000\\u001f\u007f\u2028\\"\\\\"}'),
]

# JSON as `json.dumps` writes it, and the same here.
RECEIVED_JSON = [
    ({"type": "x", "nan": math.nan, "inf": [math.inf, -math.inf, -1], "t": "NaN, \"Infinity\\"},
     '{"type": "x", "nan": null, "inf": [null, null, -1], "t": "NaN, \\"Infinity\\\\"}'),
    ({RESERVED: ["specific.gw1!c12", "ü"], "type": "é🦀"}, '{ "type": "\\u00e9\\ud83e\\udd80"}'),
    ({"type": "x", RESERVED: "specific.gw1!c12", "a": [1, {}]}, '{"type": "x", "a": [1, {}]}'),
    ({"type": "x", RESERVED: []}, '{"type": "x"}'),
]


def serializer(kind: str):
    return registry.get_serializer(kind, random_prefix_length=0)


def vectors() -> dict:
    return {
        "sent": [
            {"json": text, "recipients": recipients, "msgpack": packed(text, recipients)} for text, recipients in SENT
        ],
        "long": [long(kind, unit, length) for kind, unit in LONG for length in LENGTHS],
        "received": [
            {"msgpack": serializer("msgpack").serialize(message).hex(), "recipients": message.get(RESERVED), "json": text}
            for message, text in RECEIVED
        ],
        "received_json": [
            {"text": serializer("json").serialize(message).decode(), "recipients": message.get(RESERVED), "json": text}
            for message, text in RECEIVED_JSON
        ],
    }


def packed(text: str, recipients) -> str:
    message = json.loads(text, object_hook=bytes_of)
    if recipients is not None:
        message[RESERVED] = recipients
    return serializer("msgpack").serialize(message).hex()


def long(kind: str, unit, length: int) -> dict:
    value = {"k%d" % n: n for n in range(length)} if unit is None else unit * length
    packed = serializer("msgpack").serialize({"type": "x", "v": value})
    return {"kind": kind, "length": length, "start": packed[:24].hex(), "bytes": len(packed)}


def bytes_of(value: dict):
    if list(value) == ["$bytes"] and isinstance(value["$bytes"], str):
        try:
            return base64.b64decode(value["$bytes"], validate=True)
        except ValueError:
            return value
    return value




if __name__ == "__main__":
    FILE.write_text(json.dumps(vectors(), indent=1, ensure_ascii=True) + "\n")
