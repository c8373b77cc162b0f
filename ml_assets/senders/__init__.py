"""Ways out for messages: mail and HTTP. Each sends one message and says what became of it; nothing is kept here."""

from __future__ import annotations

from ml_assets.alerts.message import Message
from ml_assets.alerts.retry import Outcome
from ml_assets.alerts.routes import Sink, Smtp
from ml_assets.senders.mail import send_mail
from ml_assets.senders.post import post


def send(sink: Sink, secret: str, message: Message) -> Outcome:
    """Send a message to a sink; `secret` is its password, or the key that signs.

    A sink that does not answer, or answers something else, is an outcome and no error.
    """
    return send_mail(sink, secret, message) if isinstance(sink, Smtp) else post(sink, secret, message)
