"""The metadata server of Google Cloud, as a pod with Workload Identity sees it, on a free port."""

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_ACCOUNTS = "/computeMetadata/v1/instance/service-accounts/"


class MetadataServer(ThreadingHTTPServer):
    """Gives `token` to whoever asks, for a second; `scopes` are those that were asked for."""

    def __init__(self, email: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.email, self.token = email, "token-1"
        self.scopes: list[str] = []

    @property
    def environment(self) -> dict[str, str]:
        """With these variables a process asks this server alone: not that of a machine that has one."""
        return dict.fromkeys(("GCE_METADATA_HOST", "GCE_METADATA_IP"), f"127.0.0.1:{self.server_port}")


class _Handler(BaseHTTPRequestHandler):
    server: MetadataServer

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        if path.startswith(_ACCOUNTS) and path.endswith("/token"):
            self.server.scopes.append(query)
            # Clients take a token that ends so soon for one that has ended: each asks again.
            self._say({"access_token": self.server.token, "expires_in": 1, "token_type": "Bearer"})
        elif path.startswith(_ACCOUNTS):
            self._say({"email": self.server.email, "aliases": ["default"], "scopes": ["cloud-platform"]})
        else:
            self._say("markets-operations-ml")

    def _say(self, what: Any) -> None:
        body = what.encode() if isinstance(what, str) else json.dumps(what).encode()
        self.send_response(200)
        self.send_header("Metadata-Flavor", "Google")
        self.send_header("Content-Type", "application/text" if isinstance(what, str) else "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def metadata_server(email: str) -> Iterator[MetadataServer]:
    """Run the server for the length of a block."""
    with MetadataServer(email) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
