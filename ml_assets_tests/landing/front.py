"""An address of a cluster whose brokers come and go, as librdkafka must not see it and does (its issue 5301)."""

import contextlib
import socket
import socketserver
import struct
import threading
from collections.abc import Iterator

API_VERSIONS, METADATA = 18, 3


class Front(socketserver.ThreadingTCPServer):
    """An address of a cluster: at first it answers as a broker does that starts or stops, then it leads to a real one.

    A broker in transition says that the cluster has itself (`counts`), and a moment later that it has no brokers.
    """

    daemon_threads = True
    counts = True
    told = 0  # answers on who is in the cluster
    broker: tuple[str, int] | None = None

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.open: list[socket.socket] = []

    def lead_to(self, bootstrap: str) -> None:
        host, port = bootstrap.split(":")
        self.broker = (host, int(port))
        for connection in self.open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Connection(socketserver.BaseRequestHandler):
    server: Front
    request: socket.socket

    def handle(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            if self.server.broker is not None:
                self._pass_on(self.server.broker)
                return
            self.server.open.append(self.request)
            while True:
                (size,) = struct.unpack(">i", self._read(4))
                api, version, number = struct.unpack(">hhi", self._read(size)[:8])
                answer = struct.pack(">i", number) + self._answer(api, version)
                self.request.sendall(struct.pack(">i", len(answer)) + answer)

    def _answer(self, api: int, version: int) -> bytes:
        """The answer in Kafka's protocol: ApiVersions 0 and Metadata 4 are all that is offered."""
        if api == API_VERSIONS:
            unsupported = 35
            return struct.pack(">hi6h", unsupported if version else 0, 2, API_VERSIONS, 0, 0, METADATA, 0, 4)
        self.server.told += 1
        host, port = self.server.server_address
        me = struct.pack(">ih", 1, len(host)) + str(host).encode() + struct.pack(">ih", port, -1)  # node 1, no rack
        brokers = struct.pack(">i", 1) + me if self.server.counts else struct.pack(">i", 0)
        no_leader, name = 5, b"some"
        topic = struct.pack(">ihh", 1, no_leader, len(name)) + name + struct.pack(">?i", False, 0)
        return struct.pack(">i", 0) + brokers + struct.pack(">hi", -1, -1) + topic  # no cluster id, no controller

    def _read(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            more = self.request.recv(size - len(found))
            if not more:
                raise EOFError
            found += more
        return found

    def _pass_on(self, broker: tuple[str, int]) -> None:
        with socket.create_connection(broker) as other:
            threading.Thread(target=_pump, args=(other, self.request), daemon=True).start()
            _pump(self.request, other)


def _pump(one: socket.socket, other: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := one.recv(65_536):
            other.sendall(data)
        other.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def front_of_a_cluster() -> Iterator[Front]:
    """Run a front for the length of a block."""
    with Front() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()
