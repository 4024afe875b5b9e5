"""The golden files of the channel layer's codec are what channels_redis and msgpack do today, and they read them."""

import json
import math

from channels_vectors import FILE, RECEIVED, RECEIVED_JSON, RESERVED, SENT, bytes_of, serializer, vectors


def test_the_files_are_what_the_packages_write():
    assert json.loads(FILE.read_text()) == vectors()


def test_the_packages_read_what_was_written():
    for vector, (text, recipients) in zip(json.loads(FILE.read_text())["sent"], SENT, strict=True):
        read = serializer("msgpack").deserialize(bytes.fromhex(vector["msgpack"]))
        assert read.pop(RESERVED, None) == recipients
        assert read == json.loads(text, object_hook=bytes_of)


def test_our_json_form_is_read_as_the_same():
    # As `dialect/json.rs` writes it: the text itself, and the channels behind it.
    for text, recipients in SENT:
        ours = text if recipients is None else f'{text.rstrip()[:-1]}, "{RESERVED}": {json.dumps(recipients)}}}'
        read = serializer("json").deserialize(ours.encode())
        assert read.pop(RESERVED, None) == recipients
        assert read == json.loads(text)


def test_what_is_received_is_json_of_the_same_values():
    for message, text in [*RECEIVED, *RECEIVED_JSON]:
        assert json.loads(text, object_hook=bytes_of) == plain({k: v for k, v in message.items() if k != RESERVED})


def plain(value):
    """What Python's value is in JSON, which has no tuples and no numbers that are not finite."""
    match value:
        case dict():
            return {key: plain(of) for key, of in value.items()}
        case list() | tuple():
            return [plain(of) for of in value]
        case float() if not math.isfinite(value):
            return None
    return value
