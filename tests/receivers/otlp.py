"""An OTLP/HTTP receiver that decodes with OpenTelemetry's official message types.

Prints its port, then one JSON object a line for each request: path, headers, when it came, the body as it was sent
(`body`, hex), what the official types make of it when they write it again (`again`, hex), and the places of fields
that they do not know (`unknown`). Takes everything: judging is the test's task.
"""

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces

TYPES = {
    "/v1/metrics": (metrics.ExportMetricsServiceRequest, metrics.ExportMetricsServiceResponse),
    "/v1/logs": (logs.ExportLogsServiceRequest, logs.ExportLogsServiceResponse),
    "/v1/traces": (traces.ExportTraceServiceRequest, traces.ExportTraceServiceResponse),
}
output = threading.Lock()


def unknown(message, place):
    """The places of all fields in `message` that its type does not have."""
    found = [f"{place}: field {field.field_number}" for field in UnknownFieldSet(message)]
    for field, value in message.ListFields():
        if field.message_type is not None:
            # A repeated field, or one message.
            for part in [value] if hasattr(value, "ListFields") else value:
                found += unknown(part, f"{place}.{field.name}")
    return found


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        line = {"path": self.path, "received_ns": time.time_ns(), "body": body.hex(), "unknown": []}
        line["headers"] = {name.lower(): value for name, value in self.headers.items()}
        request, response = TYPES.get(self.path, (None, None))
        try:
            message = request.FromString(body)
            line["unknown"] = unknown(message, request.DESCRIPTOR.name)
            line["again"] = message.SerializeToString(deterministic=True).hex()
        except (DecodeError, AttributeError) as error:
            line["error"] = f"{type(error).__name__}: {error}"
        with output:
            print(json.dumps(line), flush=True)
        answer = response().SerializeToString() if response else b""
        self.send_response(200 if response else 404)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
server.daemon_threads = True
print(json.dumps({"port": server.server_address[1]}), flush=True)
# Ends with the test: its end of our standard input closes.
threading.Thread(target=server.serve_forever, daemon=True).start()
sys.stdin.read()
