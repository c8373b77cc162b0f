"""Real servers on this machine that take messages, or fail, hang, answer slowly, ask to wait, and lie."""

import contextlib
import socket
import socketserver
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Taken:
    """What a server took: headers by lower-case name, and bodies; and the port that it listens on."""

    port: int = 0
    headers: list[dict[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    mode: str = "take"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/alerts?team=desk"


@contextlib.contextmanager
def http_server(mode: str = "take", certificate: Path | None = None) -> Iterator[Taken]:
    """A server for webhooks: `take`, `hang`, `drip`, `redirect`, or a status with which it answers."""
    taken = Taken(mode=mode)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            taken.headers.append({name.lower(): value for name, value in self.headers.items()})
            taken.bodies.append(body)
            with contextlib.suppress(OSError):
                self._answer()

        def _answer(self) -> None:
            if taken.mode == "hang":
                time.sleep(5)
            elif taken.mode == "drip":
                for letter in b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 200:
                    self.wfile.write(bytes([letter]))
                    self.wfile.flush()
                    time.sleep(0.05)
            elif taken.mode == "lie":
                self.wfile.write(b"220 mail.bank.example ESMTP\r\n")
            else:
                self.send_response({"take": 204, "redirect": 307}.get(taken.mode) or int(taken.mode))
                if taken.mode == "redirect":
                    self.send_header("Location", "http://169.254.169.254/latest/meta-data/")
                if taken.mode == "429":
                    self.send_header("Retry-After", "120")
                self.send_header("Content-Length", "0")
                self.end_headers()

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    taken.port = server.server_address[1]
    with _serving(server, certificate):
        yield taken


@contextlib.contextmanager
def smtp_server(mode: str = "take", certificate: Path | None = None) -> Iterator[Taken]:
    """A server for mail: `take`, `hang`, `drip`, `busy` (421), `full` (452 for a recipient), `unknown` (550)."""
    taken = Taken(mode=mode)

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):
                self._talk()

        def _talk(self) -> None:
            if taken.mode == "hang":
                time.sleep(5)
                return
            if taken.mode == "drip":
                for letter in b"220-" + b"x" * 200:
                    self.wfile.write(bytes([letter]))
                    time.sleep(0.05)
                return
            self._say("421 come back later" if taken.mode == "busy" else "220 mail.bank.example ESMTP")
            while line := self.rfile.readline():
                verb = line[:4].upper()
                if verb == b"DATA":
                    self._say("354 go on")
                    taken.bodies.append(b"".join(iter(self.rfile.readline, b".\r\n")))
                    self._say("250 taken")
                elif verb == b"RCPT" and taken.mode in ("full", "unknown"):
                    self._say("452 full" if taken.mode == "full" else "550 unknown")
                elif verb == b"QUIT":
                    self._say("221 bye")
                    return
                else:
                    self._say("250 mail.bank.example")

        def _say(self, text: str) -> None:
            self.wfile.write(text.encode() + b"\r\n")

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    taken.port = server.server_address[1]
    with _serving(server, certificate):
        yield taken


@contextlib.contextmanager
def _serving(server: socketserver.TCPServer, certificate: Path | None) -> Iterator[None]:
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def closed_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
