"""A POST of JSON to an address that was looked at: signed, without redirects, and not into a private network.

A receiver checks `X-ML-Assets-Signature: t=<seconds>,v1=<hex>`: HMAC-SHA256 of `<t>.<body>` with the sink's secret, and
that `t` is near. `Idempotency-Key` is the id of the message, the same when it comes again.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import ipaddress
import json
import socket
import ssl
import time
from datetime import timedelta
from typing import Final
from urllib.parse import SplitResult, urlsplit

from ml_assets.alerts.message import Message
from ml_assets.alerts.retry import Outcome
from ml_assets.alerts.routes import Slack, Webhook
from ml_assets.senders.cut import cut_after

_MOST_READ: Final = 4096
# What may go well another time: too early, too many, and all that is the server's own fault.
_AGAIN: Final = frozenset({408, 409, 423, 425, 429})


class _RefusedError(Exception):
    """The address is one that this sink may not reach."""


def post(sink: Webhook | Slack, secret: str, message: Message) -> Outcome:
    """Send a message to the address of a sink, in its form; the answer's body is not read but to its end."""
    body = json.dumps(message.slack if isinstance(sink, Slack) else message.body, ensure_ascii=False).encode()
    headers = {"Content-Type": "application/json; charset=utf-8", "Idempotency-Key": message.id, "Connection": "close"}
    if secret:
        headers["X-ML-Assets-Signature"] = signature(secret, body, int(time.time()))
    url = urlsplit(sink.url)
    connection: http.client.HTTPConnection | None = None
    try:
        address = _allowed_address(url, sink.allow_private)
        connection = _Pinned(url, address, sink.seconds)
        with cut_after(sink.seconds, lambda: connection.sock if connection else None):
            connection.request("POST", f"{url.path or '/'}{'?' + url.query if url.query else ''}", body, headers)
            answer = connection.getresponse()
            answer.read(_MOST_READ)
    except _RefusedError as error:
        return Outcome(False, True, str(error))
    except (OSError, http.client.HTTPException, ValueError) as error:
        return Outcome(False, why=f"{type(error).__name__}: {url.hostname} did not take it")
    finally:
        if connection is not None:
            connection.close()
    return _outcome(answer)


def signature(secret: str, body: bytes, at: int) -> str:
    """Return what the header says that a receiver checks: a time in seconds, and the HMAC of it and the body."""
    digest = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"


def _outcome(answer: http.client.HTTPResponse) -> Outcome:
    if 200 <= answer.status < 300:
        return Outcome(True)
    if 300 <= answer.status < 400:
        return Outcome(False, True, f"it answered {answer.status}: redirects are not followed")
    again = answer.status >= 500 or answer.status in _AGAIN
    return Outcome(False, not again, f"it answered {answer.status}", _asked_to_wait(answer.getheader("Retry-After")))


def _asked_to_wait(said: str | None) -> timedelta | None:
    return timedelta(seconds=int(said)) if said and said.isdecimal() and len(said) < 7 else None


def _allowed_address(url: SplitResult, allow_private: bool) -> tuple[str, int]:
    """Return the address to connect to: the name is looked up once, so it cannot lead elsewhere a moment later."""
    port = url.port or (443 if url.scheme == "https" else 80)
    found = {str(entry[4][0]) for entry in socket.getaddrinfo(url.hostname, port, type=socket.SOCK_STREAM)}
    if not allow_private and (private := sorted(one for one in found if not _is_public(one))):
        raise _RefusedError(f"{url.hostname} is {private[0]}, a private address; allow_private of the sink allows it")
    return sorted(found, key=lambda one: (":" in one, one))[0], port


def _is_public(address: str) -> bool:
    found = ipaddress.ip_address(address.partition("%")[0])
    inner = getattr(found, "ipv4_mapped", None) or found
    return inner.is_global and not inner.is_multicast


class _Pinned(http.client.HTTPConnection):
    """A connection to an address, for the name of a URL."""

    def __init__(self, url: SplitResult, address: tuple[str, int], seconds: float) -> None:
        super().__init__(url.hostname or "", address[1], timeout=seconds)
        self._address = address
        self._tls = url.scheme == "https"
        self.default_port = 443 if self._tls else 80

    def connect(self) -> None:
        """Connect to the address, and speak TLS to the name."""
        self.sock = socket.create_connection(self._address, self.timeout)
        if self._tls:
            self.sock = ssl.create_default_context().wrap_socket(self.sock, server_hostname=self.host)
