"""Optional traces of the service: FastAPI's spans of requests, and spans of what they wait for, to an OTLP collector.

A request with a `traceparent` continues that trace. Spans name the use case and the request id, never an entity, a
client or a token. They are sent in a separate thread, so an unreachable collector does not delay answers; spans that
find no room in the queue are dropped.
"""

from importlib.metadata import version

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

# A collector that hangs delays the end of the service by at most this long.
_EXPORT_SECONDS = 3


def traces_to(endpoint: str) -> TracerProvider:
    """Return the provider that sends spans to the collector at `endpoint` until its `shutdown`."""
    provider = TracerProvider(
        resource=Resource.create({SERVICE_NAME: "ml-assets-scoring", SERVICE_VERSION: version("ml_assets")}),
        shutdown_on_exit=False,
    )
    exporter = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=_EXPORT_SECONDS)
    provider.add_span_processor(BatchSpanProcessor(exporter, export_timeout_millis=1000 * _EXPORT_SECONDS))
    return provider
