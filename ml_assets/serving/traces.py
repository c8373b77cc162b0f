"""Traces of the service, as an option: FastAPI's spans of requests, and what they wait for, to an OTLP collector.

A request that brings `traceparent` goes on with that trace. Spans name the use case and the request id, never an
entity, a client or a token. They are sent in a thread of their own: a collector that is away costs no answer anything,
and what finds no room is dropped.
"""

from importlib.metadata import version

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

# A collector that hangs holds up the end of the service for so long at most.
_EXPORT_SECONDS = 3


def traces_to(endpoint: str) -> TracerProvider:
    """Return what makes spans and sends them to the collector at an address, until its `shutdown`."""
    provider = TracerProvider(
        resource=Resource.create({SERVICE_NAME: "ml-assets-scoring", SERVICE_VERSION: version("ml_assets")}),
        shutdown_on_exit=False,
    )
    exporter = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=_EXPORT_SECONDS)
    provider.add_span_processor(BatchSpanProcessor(exporter, export_timeout_millis=1000 * _EXPORT_SECONDS))
    return provider
