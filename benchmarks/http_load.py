"""A generator of HTTP load that costs little: raw sockets, one thread, requests that are bytes already."""

import selectors
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec


@dataclass(frozen=True)
class Load:
    """What a load came to: answers a second, milliseconds from request to whole answer, answers that were not 200."""

    per_second: float
    p50: float
    p99: float
    failed: int


@dataclass
class _Asking:
    sent: float
    got: bytes = b""
    length: int = 0


def post(path: str, body: Any, headers: Mapping[str, str] | None = None) -> bytes:
    """Return a request as it goes over the wire."""
    said = msgspec.json.encode(body)
    lines = [f"POST {path} HTTP/1.1", "host: bench", "content-type: application/json", f"content-length: {len(said)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode() + said


def load(port: int, requests: Sequence[bytes], *, connections: int = 16, seconds: float = 5.0) -> Load:
    """Send the requests in turn over so many connections for so long, each connection one after the other."""
    selector, asking = selectors.DefaultSelector(), dict[socket.socket, _Asking]()
    took, failed, number = list[float](), 0, 0
    started = time.perf_counter()
    for _ in range(connections):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        selector.register(connection, selectors.EVENT_READ)
        asking[connection] = _Asking(time.perf_counter())
        connection.sendall(requests[number % len(requests)])
        number += 1
    while asking:
        ready = selector.select(30)
        assert ready, f"no answer in 30 s on port {port}"
        for key, _ in ready:
            connection: Any = key.fileobj
            now = asking[connection]
            received = connection.recv(1 << 18)
            assert received, f"port {port} closed a connection"
            now.got += received
            if not now.length:
                end = now.got.find(b"\r\n\r\n")
                if end < 0:
                    continue
                head = now.got[:end].lower()
                now.length = end + 4 + int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
                failed += not head.startswith(b"http/1.1 200 ")
            if len(now.got) < now.length:
                continue
            done = time.perf_counter()
            took.append(done - now.sent)
            if done - started > seconds:
                selector.unregister(connection)
                connection.close()
                del asking[connection]
                continue
            asking[connection] = _Asking(time.perf_counter())
            connection.sendall(requests[number % len(requests)])
            number += 1
    took.sort()
    whole = time.perf_counter() - started
    return Load(len(took) / whole, took[len(took) // 2] * 1e3, took[int(len(took) * 0.99)] * 1e3, failed)
