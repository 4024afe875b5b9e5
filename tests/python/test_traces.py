"""OpenTelemetry's own propagator writes what a publisher sends, and reads what a backend gets: both are in one trace."""

import json
import queue
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from client import DEADLINE
from conftest import Gateway
from opentelemetry import trace
from opentelemetry.propagate import extract, inject
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState

CONFIG = """
[server]
listen = "127.0.0.1:0"
data_dir = "data"

[jobs]
retry_base = "10ms"
retry_max = "50ms"

[[consumer]]
name = "views"
group = "my_group"
type = "view"
run = "http"
url = "{url}"
allow_private = true
"""


class Backend:
    """Does its work in a span that goes on where the request says. Fails once."""

    def __init__(self, tracer: trace.Tracer):
        self.contexts: queue.Queue[SpanContext] = queue.Queue()
        backend = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                context = extract({name.lower(): value for name, value in self.headers.items()})
                with tracer.start_as_current_span("work", context=context):
                    self.send_response(503 if json.loads(body)["attempt"] == 1 else 200)
                    self.send_header("retry-after", "0")
                    self.send_header("content-length", "0")
                    self.end_headers()
                backend.contexts.put(trace.get_current_span(context).get_span_context())

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/jobs"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def spans():
    return InMemorySpanExporter()


@pytest.fixture
def tracer(spans):
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    return provider.get_tracer("tests")


@pytest.fixture
def backend(tracer):
    running = Backend(tracer)
    yield running
    running.close()


@pytest.fixture
def gateway(tmp_path, backend):
    (tmp_path / "groupcast.toml").write_text(CONFIG.format(url=backend.url))
    running = Gateway(tmp_path)
    yield running
    running.kill()


def published(gateway: Gateway, headers: dict) -> str:
    url = f"{gateway.url}/v1/groups/my_group/send"
    answer = httpx.post(url, json={"type": "view"}, headers=headers, timeout=DEADLINE, trust_env=False)
    assert answer.status_code == 202, answer.text
    return answer.json()["jobs"][0]["id"]


def test_work_goes_on_in_the_trace_of_who_asked_for_it(gateway, backend, tracer, spans):
    state = TraceState([("rojo", "00f067aa0ba902b7"), ("congo", "t61 rcWkgMzE")])
    caller = SpanContext(0x4BF92F3577B34DA6A3CE929D0E0E4736, 7, True, TraceFlags(TraceFlags.SAMPLED), state)
    headers = {}
    with tracer.start_as_current_span("publish", trace.set_span_in_context(NonRecordingSpan(caller))) as span:
        inject(headers)
        job = published(gateway, headers)
    asker = span.get_span_context()
    for _ in range(2):
        told = backend.contexts.get(timeout=DEADLINE)
        assert (told.trace_id, told.span_id, told.is_remote) == (caller.trace_id, asker.span_id, True)
        assert told.trace_flags.sampled and told.trace_state == state
    work = [span for span in spans.get_finished_spans() if span.name == "work"]
    assert [(span.context.trace_id, span.parent.span_id) for span in work] == [(caller.trace_id, asker.span_id)] * 2
    record = httpx.get(f"{gateway.url}/v1/jobs/{job}", params={"wait": 20}, timeout=2 * DEADLINE, trust_env=False).json()
    assert (record["state"], record["traceparent"]) == ("succeeded", headers["traceparent"])


def test_what_is_not_sampled_stays_so_and_what_is_no_trace_begins_none(gateway, backend):
    unsampled = SpanContext(0x4BF92F3577B34DA6A3CE929D0E0E4736, 7, True, TraceFlags(TraceFlags.DEFAULT))
    headers = {}
    inject(headers, trace.set_span_in_context(NonRecordingSpan(unsampled)))
    published(gateway, headers)
    told = backend.contexts.get(timeout=DEADLINE)
    assert (told.trace_id, told.trace_flags.sampled) == (unsampled.trace_id, False)
    backend.contexts.get(timeout=DEADLINE)
    published(gateway, {"traceparent": headers["traceparent"].upper()})
    assert not backend.contexts.get(timeout=DEADLINE).is_valid
