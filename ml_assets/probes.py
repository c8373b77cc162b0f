"""What a process tells who watches it: /metrics for Prometheus, /live and /ready for probes."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment


class Health(Protocol):
    """Whether a process lives and is ready, with a word on each."""

    def live(self) -> tuple[bool, str]:
        """Return whether it lives: one that does not is restarted."""

    def ready(self) -> tuple[bool, str]:
        """Return whether it does what it should, and what is wrong if not."""


def serve(registry: CollectorRegistry, health: Health, port: int, host: str = "0.0.0.0") -> WSGIServer:  # noqa: S104
    """Serve /metrics, /live and /ready in a thread of their own; port 0 takes a free one. `shutdown()` ends it."""
    exposition = make_wsgi_app(registry)
    answers = {"/live": health.live, "/ready": health.ready}

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == "/metrics":
            found: Iterable[bytes] = exposition(environ, start_response)
            return found
        if path in answers:
            good, why = answers[path]()
            status = "200 OK" if good else "503 Service Unavailable"
        else:
            status, why = "404 Not Found", "there are /metrics, /live and /ready"
        start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
        return [f"{why}\n".encode()]

    server = make_server(host, port, app, handler_class=_Quiet)
    threading.Thread(target=server.serve_forever, name="probes", daemon=True).start()
    return server


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's signature
        """Say nothing: probes come every few seconds."""
