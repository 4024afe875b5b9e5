"""A collector of traces: what OpenTelemetry's own schema makes of what is posted to it."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from conftest import wait_for
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Wire
from opentelemetry.proto.trace.v1.trace_pb2 import Status


@dataclass
class Span:
    service: str
    node: str
    trace_id: str
    span_id: str
    parent_id: str
    name: str
    kind: str
    began: int
    ended: int
    failed: bool
    attributes: dict = field(default_factory=dict)


class Collector:
    """Answers 200, or what it is told to. `hang` makes it take requests and never answer."""

    def __init__(self):
        self.spans: list[Span] = []
        self.headers: list[dict] = []
        self.posts = 0
        self.status = 200
        self.let_go = threading.Event()
        self.let_go.set()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def hang(self) -> None:
        self.let_go.clear()

    def close(self) -> None:
        self.let_go.set()
        self.server.shutdown()
        self.server.server_close()

    def of_trace(self, trace_id: str) -> list[Span]:
        return [span for span in self.spans if span.trace_id == trace_id]

    def find(self, trace_id: str, name: str, is_it: Callable[[Span], bool] = lambda span: True) -> Span:
        def look():
            return next((span for span in self.of_trace(trace_id) if span.name == name and is_it(span)), None)

        try:
            return wait_for(f"the span {name!r}", look)
        except AssertionError:
            raise AssertionError(f"no span {name!r} among {self.of_trace(trace_id)}") from None

    def _handler(self):
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                collector.posts += 1
                collector.let_go.wait()
                if collector.status == 200:
                    assert self.path == "/v1/traces", self.path
                    assert self.headers["content-type"] == "application/x-protobuf"
                    collector.headers.append({name.lower(): value for name, value in self.headers.items()})
                    collector.spans += read(body)
                try:
                    self.send_response(collector.status)
                    self.send_header("content-length", "0")
                    self.end_headers()
                except OSError:
                    # It did not wait that long.
                    self.close_connection = True

            def log_message(self, *_):
                pass

        return Handler


def read(body: bytes) -> list[Span]:
    request = trace_service_pb2.ExportTraceServiceRequest.FromString(body)
    spans = []
    for of_resource in request.resource_spans:
        resource = values(of_resource.resource.attributes)
        for of_scope in of_resource.scope_spans:
            for span in of_scope.spans:
                spans.append(
                    Span(
                        resource["service.name"],
                        resource["service.instance.id"],
                        span.trace_id.hex(),
                        span.span_id.hex(),
                        span.parent_span_id.hex(),
                        span.name,
                        Wire.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
                        span.start_time_unix_nano,
                        span.end_time_unix_nano,
                        span.status.code == Status.STATUS_CODE_ERROR,
                        values(span.attributes),
                    )
                )
    return spans


def values(attributes) -> dict:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in attributes}
