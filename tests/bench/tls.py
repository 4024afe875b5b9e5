#!/usr/bin/env python3
"""What TLS costs: CPU of the gateway for each delivery, with and without it, by the same client in one run.

    tests/bench/tls.py target/release/groupcast [subscribers] [messages]

Starts a gateway of its own on a free port, first plain, then with a certificate made for the run (`openssl` is needed).
The client is slow, being Python, and answers no pings, so a run has to end within 30 s. The gateway's CPU time is what
counts, and that is read from /proc.
"""

import asyncio
import os
import ssl
import subprocess
import sys
import tempfile
import time

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
PAYLOAD = b'{"type":"bench.message","data":"' + b"x" * 128 + b'"}'
IN_FLIGHT = 8


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def subscriber(port, context, joined, expected):
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, limit=1 << 20)
    writer.write(
        f"GET /ws?group=tls HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n".encode()
    )
    await reader.readuntil(b'"type":"subscribed"')
    joined.release()
    seen, tail = 0, b""
    while seen < expected:
        data = await asyncio.wait_for(reader.read(1 << 18), 60)
        assert data, "the gateway hung up"
        text = tail + data
        seen += text.count(b"bench.message")
        tail = text[-12:]
        seen -= tail.count(b"bench.message")
    writer.close()


async def publisher(port, context, messages):
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    request = (
        f"POST /v1/groups/tls/send HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(PAYLOAD)}\r\n\r\n"
    ).encode() + PAYLOAD
    for _ in range(messages // IN_FLIGHT):
        writer.write(request * IN_FLIGHT)
        for _ in range(IN_FLIGHT):
            head = await reader.readuntil(b"\r\n\r\n")
            assert b" 202 " in head, head
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
            await reader.readexactly(int(length.split(b":")[1]))
        # The client is the slower part: let it read.
        await asyncio.sleep(0.002)
    writer.close()


async def load(pid, port, context, subscribers, messages):
    joined = asyncio.Semaphore(0)
    before = cpu_seconds(pid)
    readers = [asyncio.create_task(subscriber(port, context, joined, messages)) for _ in range(subscribers)]
    for _ in readers:
        await joined.acquire()
    connected = cpu_seconds(pid)
    await publisher(port, context, messages)
    await asyncio.gather(*readers)
    return connected - before, cpu_seconds(pid) - connected


def measure(binary, folder, secure, subscribers, messages):
    config = '[server]\nlisten = "127.0.0.1:0"\n'
    if secure:
        config += '[server.tls]\ncert = "cert.pem"\nkey = "key.pem"\n'
    with open(f"{folder}/groupcast.toml", "w", encoding="ascii") as file:
        file.write(config)
    gateway = subprocess.Popen([binary, "serve", "--config", "groupcast.toml"], cwd=folder, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True)
    try:
        port = None
        while port is None:
            line = gateway.stdout.readline()
            assert line, "the gateway did not start"
            if "127.0.0.1:" in line:
                port = int(line.split("127.0.0.1:")[1].split()[0].strip("/").split("\x1b")[0])
        context = ssl.create_default_context(cafile=f"{folder}/cert.pem") if secure else None
        connect, deliver = asyncio.run(load(gateway.pid, port, context, subscribers, messages))
    finally:
        gateway.terminate()
        gateway.wait(30)
    return connect * 1e6 / subscribers, deliver * 1e6 / (subscribers * messages)


def main():
    binary = os.path.abspath(sys.argv[1])
    subscribers = int(sys.argv[2]) if len(sys.argv) > 2 else 200
    messages = int(sys.argv[3]) if len(sys.argv) > 3 else 4000
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days",
             "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", f"{folder}/key.pem",
             "-out", f"{folder}/cert.pem"], check=True, capture_output=True)
        for secure in (False, True):
            began = time.monotonic()
            connect, deliver = measure(binary, folder, secure, subscribers, messages)
            name = "TLS  " if secure else "plain"
            print(f"{name}  {connect:7.1f} us/connect  {deliver:6.2f} us/delivery  "
                  f"({subscribers} x {messages} in {time.monotonic() - began:.1f} s)")


main()
