"""Traces, as a collector gets them: the whole tree of what one request has brought about, and what a bad collector costs."""

import json
import queue
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from brokers import Redis
from client import connect, run
from collector import Collector
from conftest import DEADLINE, Gateway, wait_for

BARE = """
[server]
listen = "127.0.0.1:0"
data_dir = "data"
node = "{node}"
{more}
"""
TRACING = """
[tracing]
endpoint = "{endpoint}"
sample = {sample}
"""
CLUSTER = """
[jobs]
single_gateway = true

[layer]
kind = "redis"
url = "{redis}"

[[consumer]]
name = "views"
group = "my_group"
type = "execute_query"
run = "http"
url = "{backend}/jobs"
allow_private = true
durability = "memory"
mode = "both"
"""
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
SECRET = "canary-0123456789abcdef0123456789abcdef"


def traceparent(trace: str = TRACE, sampled: bool = True) -> dict:
    return {"traceparent": f"00-{trace}-{PARENT}-{'01' if sampled else '00'}"}


class Backend:
    """Does the work of one job after the other, and keeps the heads of the requests."""

    def __init__(self):
        calls = self.calls = queue.Queue()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                self.rfile.read(int(self.headers["content-length"]))
                calls.put({name.lower(): value for name, value in self.headers.items()})
                body = b'{"rows":[[1]]}'
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def collector():
    collector = Collector()
    yield collector
    collector.close()


@pytest.fixture
def start(tmp_path):
    running = []

    def start(node: str, config: str, more: str = "") -> Gateway:
        folder: Path = tmp_path / node
        folder.mkdir()
        (folder / "groupcast.toml").write_text(BARE.format(node=node, more=more) + config)
        running.append(Gateway(folder))
        return running[-1]

    yield start
    for gateway in running:
        if gateway.process.poll() is None:
            gateway.kill()
        gateway.reader.join(DEADLINE)
        panics = [line for line in gateway.lines if "panicked" in line]
        assert not panics, f"the gateway panicked: {panics}"


def send(gateway: Gateway, group: str, message: dict, headers: dict | None = None) -> httpx.Response:
    url = f"{gateway.url}/v1/groups/{group}/send"
    response = httpx.post(url, json=message, headers=headers, timeout=DEADLINE, trust_env=False)
    assert response.status_code == 202, response.text
    return response


def counted(gateway: Gateway, outcome: str) -> int:
    text = httpx.get(f"{gateway.url}/metrics", timeout=DEADLINE, trust_env=False).text
    name = f'groupcast_trace_spans_total{{outcome="{outcome}"}} '
    return int(next(line for line in text.splitlines() if line.startswith(name)).removeprefix(name))


def test_one_trace_from_the_request_to_the_delivery_at_another_gateway_and_through_a_job(tmp_path, collector, start):
    redis, backend = Redis(tmp_path / "redis"), Backend()
    try:
        config = CLUSTER.format(redis=redis.url, backend=backend.url)
        config += TRACING.format(endpoint=collector.url, sample=0.0)
        one, two = start("one", config), start("two", config)

        async def story():
            async with connect(two, "?group=my_group") as reader:
                await reader.expect("subscribed")
                send(one, "my_group", {"type": "execute_query"}, traceparent(sampled=False))
                await reader.message("job.result")
                send(one, "my_group", {"type": "execute_query"}, traceparent() | {"tracestate": "rojo=1"})
                await reader.message("job.result")

        run(story())
    finally:
        redis.kill()
    request = collector.find(TRACE, "POST /v1/groups/{group}/send")
    assert (request.parent_id, request.node, request.kind, request.service) == (PARENT, "one", "server", "groupcast")
    assert request.attributes["http.route"] == "/v1/groups/{group}/send"
    assert (request.attributes["http.request.method"], request.attributes["http.response.status_code"]) == ("POST", 202)
    publish = collector.find(TRACE, "publish", lambda span: span.parent_id == request.span_id)
    assert (publish.node, publish.kind) == ("one", "producer")
    assert publish.attributes["messaging.destination.name"] == "my_group"
    deliver = collector.find(TRACE, "deliver", lambda span: span.parent_id == publish.span_id)
    assert (deliver.node, deliver.kind, deliver.attributes["groupcast.recipients"]) == ("two", "consumer", 1)
    assert deliver.attributes["messaging.destination.name"] == "my_group"
    process = collector.find(TRACE, "process")
    assert (process.parent_id, process.node, process.kind) == (publish.span_id, "one", "consumer")
    assert (process.attributes["groupcast.job.attempt"], process.attributes["groupcast.job.outcome"]) == (1, "succeeded")
    assert process.attributes["groupcast.job.id"] == publish.attributes["groupcast.jobs"]
    call = collector.find(TRACE, "POST")
    assert (call.parent_id, call.kind, call.attributes["http.response.status_code"]) == (process.span_id, "client", 200)
    unsampled, asked = backend.calls.get(timeout=DEADLINE), backend.calls.get(timeout=DEADLINE)
    assert unsampled["traceparent"] == traceparent(sampled=False)["traceparent"]
    assert asked["traceparent"] == f"00-{TRACE}-{call.span_id}-01"
    assert asked["tracestate"] == "rojo=1"
    for kind in ["job.started", "job.result"]:
        event = collector.find(TRACE, "publish", lambda span: span.attributes["groupcast.message.type"] == kind)
        assert event.parent_id == process.span_id
        told = collector.find(TRACE, "deliver", lambda span: span.parent_id == event.span_id)
        assert told.node == "two"
    # Once, and nothing of the one that was not sampled.
    assert [span.name for span in collector.spans].count("POST /v1/groups/{group}/send") == 1
    ids = [span.span_id for span in collector.spans]
    assert len(set(ids)) == len(ids)
    assert all(span.parent_id in {PARENT, *ids} and span.began <= span.ended for span in collector.spans)
    assert not any(span.failed for span in collector.spans)
    assert process.began >= publish.began and call.began >= process.began and call.ended <= process.ended


def test_only_services_have_a_word_in_what_is_recorded(collector, start, monkeypatch):
    monkeypatch.setenv("APP_API_KEYS", SECRET)
    auth = '[auth]\napi_keys_env = "APP_API_KEYS"\nanonymous = { send = ["room.*"] }\n'
    gateway = start("gw1", TRACING.format(endpoint=collector.url, sample=0.0) + auth)
    stranger, service = "1" * 32, "2" * 32
    send(gateway, "room.1", {"type": "chat"}, traceparent(stranger))
    send(gateway, "room.1", {"type": "chat"}, traceparent(service) | {"authorization": f"Bearer {SECRET}"})
    collector.find(service, "publish")
    assert gateway.stop() == 0
    assert collector.of_trace(stranger) == []


def test_what_begins_here_is_recorded_by_its_share_and_the_log_has_its_name(collector, start):
    log = 'log_format = "json"\nlog = "groupcast=debug"'
    gateway = start("gw1", TRACING.format(endpoint=collector.url, sample=1.0) + 'service_name = "front"\n', log)
    response = httpx.post(f"{gateway.url}/v1/groups/a%20b/send", json={"type": "x"}, trust_env=False)
    assert response.status_code == 422
    span = wait_for("a span", lambda: next(iter(collector.spans), None))
    assert (span.name, span.parent_id, span.service) == ("POST /v1/groups/{group}/send", "", "front")
    assert span.attributes["http.response.status_code"] == 422 and not span.failed
    refused = httpx.post(
        f"{gateway.url}/admin/api/session", json={"key": "wrong"}, headers=traceparent(), trust_env=False
    )
    assert refused.status_code == 401
    line = wait_for("the refusal", lambda: next((line for line in gateway.lines if "sign-in" in line), None))
    assert json.loads(line)["trace_id"] == TRACE
    assert json.loads(line)["request"] == refused.headers["x-request-id"]


def test_the_standard_variables_are_heard_and_their_secret_is_told_to_nobody(collector, start, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"authorization=Bearer%20{SECRET},x-tenant=a")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "of the variable")
    gateway = start("gw1", "[tracing]\nsample = 1.0\n", 'log = "trace,hyper=trace,reqwest=trace"')
    send(gateway, "room.1", {"type": "chat"})
    span = wait_for("a span", lambda: next(iter(collector.spans), None))
    assert span.service == "of the variable"
    assert collector.headers[0]["authorization"] == f"Bearer {SECRET}"
    assert collector.headers[0]["x-tenant"] == "a"
    collector.status = 400
    send(gateway, "room.1", {"type": "chat"})
    wait_for("the refusal to be told", lambda: "takes no spans" in "".join(gateway.lines))
    assert gateway.stop() == 0
    gateway.reader.join(DEADLINE)
    assert SECRET not in "".join(gateway.lines)


def test_a_batch_that_was_not_taken_is_sent_again_and_one_that_makes_no_sense_is_not(collector, start):
    gateway = start("gw1", TRACING.format(endpoint=collector.url, sample=1.0))
    collector.status = 503
    send(gateway, "room.1", {"type": "chat"})
    wait_for("a first try", lambda: collector.posts == 1)
    collector.status = 200
    wait_for("both spans", lambda: len(collector.spans) == 2)
    collector.status = 400
    send(gateway, "room.1", {"type": "chat"})
    wait_for("both to be counted", lambda: counted(gateway, "failed") == 2)
    assert (counted(gateway, "exported"), counted(gateway, "dropped")) == (2, 0)


def test_a_collector_that_hangs_costs_spans_and_nothing_else(collector, start):
    collector.hang()
    gateway = start("gw1", TRACING.format(endpoint=collector.url, sample=1.0))
    batch = [{"group": "room.1", "message": {"type": "chat", "n": n}} for n in range(1000)]

    def publish_many():
        response = httpx.post(f"{gateway.url}/v1/send", json=batch, timeout=DEADLINE, trust_env=False)
        assert response.status_code == 202 and all(one["status"] == 202 for one in response.json()["results"])

    for _ in range(6):
        publish_many()
    wait_for("what finds no room to be counted", lambda: counted(gateway, "dropped") > 0)
    before = memory_kib(gateway)
    for _ in range(30):
        publish_many()
    assert memory_kib(gateway) - before < 16 * 1024, "spans that nobody takes are not kept"
    assert counted(gateway, "exported") == 0
    assert gateway.stop() == 0, "it drains, whatever the collector does"


def test_a_collector_that_is_not_there_keeps_nobody(start):
    gateway = start("gw1", TRACING.format(endpoint="http://127.0.0.1:1", sample=1.0))
    for _ in range(3):
        send(gateway, "room.1", {"type": "chat"})
    assert gateway.stop() == 0
    gateway.reader.join(DEADLINE)
    assert "takes no spans" in "".join(gateway.lines)


def memory_kib(gateway: Gateway) -> int:
    status = Path(f"/proc/{gateway.process.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS:")).split()[1])
