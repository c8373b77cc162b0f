"""Mail and webhooks against real servers that take messages, fail, hang, ask to wait and lie."""

import email
import email.policy
import hashlib
import hmac
import json
import time
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_assets.alerts.message import Message
from ml_assets.alerts.retry import ATTEMPTS, Outcome, next_try
from ml_assets.alerts.routes import Slack, Smtp, Webhook
from ml_assets.senders import send
from ml_assets.senders.post import _is_public
from ml_assets_tests.kafka.certificates import issue
from ml_assets_tests.senders.servers import closed_port, http_server, smtp_server

MESSAGE = Message(
    "m-1", "[critical] fails: Stale feed, source=trades opened", "- tränën\n.\nend", {"id": "m-1", "count": 1}
)


def webhook(url: str, seconds: float = 2.0) -> Webhook:
    return Webhook(url=url, allow_private=True, seconds=seconds)


def mail(port: int, seconds: float = 2.0) -> Smtp:
    return Smtp(
        host="127.0.0.1", port=port, tls="none", sender="ml-assets@bank.example",
        to=["desk@bank.example", "head@bank.example"], seconds=seconds,
    )  # fmt: skip


def test_a_webhook_is_signed_and_names_the_message() -> None:
    with http_server() as taken:
        assert send(webhook(taken.url), "secret", MESSAGE) == Outcome(True)
    (headers,), (body,) = taken.headers, taken.bodies
    assert json.loads(body) == {"id": "m-1", "count": 1}
    assert headers["idempotency-key"] == "m-1"
    at, _, digest = headers["x-ml-assets-signature"].removeprefix("t=").partition(",v1=")
    assert abs(int(at) - time.time()) < 60
    assert hmac.compare_digest(digest, hmac.new(b"secret", f"{at}.".encode() + body, hashlib.sha256).hexdigest())


def test_slack_gets_its_own_form_and_no_signature_without_a_secret() -> None:
    with http_server() as taken:
        assert send(Slack(url=taken.url, allow_private=True), "", MESSAGE).sent
    assert json.loads(taken.bodies[0])["text"].startswith("[critical] fails: Stale feed")
    assert "x-ml-assets-signature" not in taken.headers[0]


@pytest.mark.parametrize(
    ("mode", "refused", "said"),
    [
        ("500", False, "it answered 500"),
        ("404", True, "it answered 404"),
        ("redirect", True, "redirects are not followed"),
        ("lie", False, "BadStatusLine"),
    ],
)
def test_a_webhook_that_does_not_take_it(mode: str, refused: bool, said: str) -> None:
    with http_server(mode) as taken:
        outcome = send(webhook(taken.url), "", MESSAGE)
    assert (outcome.sent, outcome.refused) == (False, refused)
    assert said in outcome.why


def test_a_webhook_that_asks_to_wait_is_heard() -> None:
    with http_server("429") as taken:
        outcome = send(webhook(taken.url), "", MESSAGE)
    assert (outcome.refused, outcome.after) == (False, timedelta(seconds=120))
    assert next_try(outcome, 1) == timedelta(seconds=120)


@pytest.mark.parametrize("mode", ["hang", "drip"])
def test_nobody_waits_for_a_server_that_hangs_or_answers_a_letter_at_a_time(mode: str) -> None:
    """Guards a time-out that each letter starts anew."""
    for server, sink in ((http_server, lambda t: webhook(t.url, 0.3)), (smtp_server, lambda t: mail(t.port, 0.3))):
        with server(mode) as taken:
            begun = time.monotonic()
            outcome = send(sink(taken), "", MESSAGE)
            assert time.monotonic() - begun < 2, server
        assert (outcome.sent, outcome.refused) == (False, False)


def test_nobody_listens() -> None:
    for sink in (webhook(f"http://127.0.0.1:{closed_port()}/"), mail(closed_port())):
        outcome = send(sink, "", MESSAGE)
        assert (outcome.sent, outcome.refused) == (False, False)
        assert "ConnectionRefusedError" in outcome.why


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "169.254.169.254", "10.0.0.1", "0.0.0.0", "[::ffff:10.0.0.1]"]
)
def test_a_private_address_is_refused_unless_it_is_allowed(host: str) -> None:
    """Guards a webhook that reads the cloud's metadata, or the database's port."""
    outcome = send(Webhook(url=f"http://{host}:9/"), "", MESSAGE)
    assert (outcome.sent, outcome.refused) == (False, True)
    assert "a private address" in outcome.why


def test_public_addresses_are_not() -> None:
    assert _is_public("8.8.8.8")
    assert _is_public("2001:4860:4860::8888")
    assert not _is_public("224.0.0.1")


def test_a_mail_has_the_id_of_the_message_and_its_text() -> None:
    with smtp_server() as taken:
        assert send(mail(taken.port), "", MESSAGE) == Outcome(True)
    (body,) = taken.bodies
    got = email.message_from_bytes(body, policy=email.policy.default)
    assert got["Subject"] == MESSAGE.subject
    assert got["Message-ID"] == "<m-1@bank.example>"
    assert got["To"] == "desk@bank.example, head@bank.example"
    assert "tränën" in got.get_content()


@pytest.mark.parametrize(
    ("mode", "refused", "said"),
    [("busy", False, "421"), ("full", False, "452"), ("unknown", True, "550")],
)
def test_a_mail_server_that_does_not_take_it(mode: str, refused: bool, said: str) -> None:
    with smtp_server(mode) as taken:
        outcome = send(mail(taken.port), "", MESSAGE)
    assert (outcome.sent, outcome.refused) == (False, refused)
    assert said in outcome.why


def test_who_speaks_tls_with_a_certificate_that_nobody_signed_is_told_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards alerts, and a password, that go to whoever answers."""
    made = issue(tmp_path)
    for server, sink in (
        (http_server, lambda port: webhook(f"https://localhost:{port}/")),
        (smtp_server, lambda port: msgspec.structs.replace(mail(port), host="localhost", tls="tls")),
    ):
        monkeypatch.delenv("SSL_CERT_FILE", raising=False)
        with server(certificate=made.server_file) as taken:
            outcome = send(sink(taken.port), "", MESSAGE)
            assert (outcome.sent, outcome.refused, taken.bodies) == (False, False, [])
            assert "SSLCertVerificationError" in outcome.why
            monkeypatch.setenv("SSL_CERT_FILE", str(made.ca_file))
            assert send(sink(taken.port), "", MESSAGE).sent


def test_a_server_without_starttls_gets_no_password() -> None:
    with smtp_server() as taken:
        careful = msgspec.structs.replace(mail(taken.port), tls="starttls", username="ml-assets")
        outcome = send(careful, "secret", MESSAGE)
    assert (outcome.sent, taken.bodies) == (False, [])
    assert "SMTPNotSupportedError" in outcome.why


def test_no_subject_begins_a_header() -> None:
    """Guards what is not cleaned before: the mail is not made, and so not sent."""
    with smtp_server() as taken:
        outcome = send(mail(taken.port), "", Message("m-1", "x\r\nBcc: all@else.where", "t", {}))
    assert not outcome.sent
    assert taken.bodies == []


@given(st.integers(1, ATTEMPTS + 5), st.booleans(), st.none() | st.integers(0, 10**6))
def test_tries_are_farther_apart_and_end(attempts: int, refused: bool, after: int | None) -> None:
    outcome = Outcome(False, refused, "x", None if after is None else timedelta(seconds=after))
    wait = next_try(outcome, attempts)
    if refused or attempts >= ATTEMPTS:
        assert wait is None
    else:
        assert timedelta(seconds=30) <= wait <= timedelta(hours=1)
        later = next_try(outcome, attempts + 1)
        assert later is None or later >= wait
