"""A process of a Django Channels project, on commands: the real channel layer behind lines of JSON.

The first argument is an entry of CHANNEL_LAYERS as JSON: {"BACKEND": "...", "CONFIG": {...}}. Then, on standard input, a line
for each command, and on standard output a line for each answer, in the order in which they are done:

    {"id": 1, "do": "group_send", "args": ["my_group", {"type": "execute_query", "queryset_id": 7}]}
    {"id": 1, "ok": null}
    {"id": 2, "do": "receive", "args": ["specific.…!…"], "timeout": 5}
    {"id": 2, "error": "TimeoutError", "text": ""}

A receive may wait while other commands are done. Bytes are {"__bytes__": "hex"}, both ways. The end of the input is the end.
"""

import asyncio
import importlib
import json
import sys

COMMANDS = {"send", "receive", "new_channel", "group_add", "group_discard", "group_send", "flush"}
# The longest line of a command: a message may have a megabyte.
LINE_BYTES = 16 * 1024 * 1024


async def main() -> None:
    settings = json.loads(sys.argv[1])
    module, name = settings["BACKEND"].rsplit(".", 1)
    layer = getattr(importlib.import_module(module), name)(**settings.get("CONFIG", {}))
    reader = asyncio.StreamReader(limit=LINE_BYTES)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    say({"ready": type(layer).__name__})
    waiting = set()
    while line := await reader.readline():
        command = json.loads(line, object_hook=bytes_from_json)
        task = asyncio.create_task(done(layer, command))
        waiting.add(task)
        task.add_done_callback(waiting.discard)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    if hasattr(layer, "close_pools"):
        await layer.close_pools()


async def done(layer, command: dict) -> None:
    answer = {"id": command["id"]}
    try:
        assert command["do"] in COMMANDS, f"unknown: {command['do']}"
        call = getattr(layer, command["do"])(*command.get("args", []))
        answer["ok"] = await asyncio.wait_for(call, command.get("timeout", 20))
    except Exception as error:
        answer |= {"error": type(error).__name__, "text": str(error)}
    say(answer)


def say(answer: dict) -> None:
    print(json.dumps(answer, default=bytes_to_json), flush=True)


def bytes_to_json(value):
    return {"__bytes__": value.hex()} if isinstance(value, bytes) else repr(value)


def bytes_from_json(value: dict):
    return bytes.fromhex(value["__bytes__"]) if set(value) == {"__bytes__"} else value


if __name__ == "__main__":
    asyncio.run(main())
