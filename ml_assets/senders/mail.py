"""Mail through one server, by the standard library."""

from __future__ import annotations

import mimetypes
import smtplib
import ssl
from email.message import EmailMessage
from email.utils import formatdate

from ml_assets.alerts.message import Message
from ml_assets.alerts.retry import Outcome
from ml_assets.alerts.routes import Smtp
from ml_assets.senders.cut import cut_after


class _Plain(smtplib.SMTP):
    """A conversation that is known from before its first word, so that it can be cut."""

    def __init__(self, sink: Smtp, known: list[smtplib.SMTP]) -> None:
        known.append(self)
        super().__init__(sink.host, sink.port, timeout=sink.seconds)


class _Tls(smtplib.SMTP_SSL):
    """The same, in TLS from its first word."""

    def __init__(self, sink: Smtp, known: list[smtplib.SMTP]) -> None:
        known.append(self)
        super().__init__(sink.host, sink.port, timeout=sink.seconds, context=ssl.create_default_context())


def send_mail(sink: Smtp, password: str, message: Message) -> Outcome:
    """Send a message to all recipients of a sink in one mail, whose Message-ID is that of the message."""
    known: list[smtplib.SMTP] = []
    try:
        with cut_after(sink.seconds, lambda: getattr(known[0], "sock", None) if known else None):
            server: smtplib.SMTP = _Tls(sink, known) if sink.tls == "tls" else _Plain(sink, known)
            if sink.tls == "starttls":
                server.starttls(context=ssl.create_default_context())
            if sink.username:
                server.login(sink.username, password)
            refused = server.send_message(_mail(sink, message))
    except smtplib.SMTPRecipientsRefused as error:
        codes = [code for code, _ in error.recipients.values()]
        return Outcome(False, all(code >= 500 for code in codes), f"all recipients were refused: {_said(codes)}")
    except smtplib.SMTPResponseException as error:
        return Outcome(False, 500 <= error.smtp_code < 600, f"the server answered {error.smtp_code}")
    except (OSError, smtplib.SMTPException, ValueError) as error:
        return Outcome(False, why=f"{type(error).__name__}: the server at {sink.host}:{sink.port} did not take it")
    finally:
        # Without a good-bye: the mail is the server's from when it said so, whatever it answers to more.
        for one in known:
            one.close()
    # Those who were taken would get it twice.
    return Outcome(True, why=f"{len(refused)} of {len(sink.to)} recipients were refused" if refused else "")


def _mail(sink: Smtp, message: Message) -> EmailMessage:
    mail = EmailMessage()
    mail["Subject"] = message.subject
    mail["From"] = sink.sender
    mail["To"] = ", ".join(sink.to)
    mail["Date"] = formatdate()
    mail["Message-ID"] = f"<{message.id}@{sink.sender.partition('@')[2]}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(message.text)
    for name, content in message.files.items():
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        main, _, sub = kind.partition("/")
        mail.add_attachment(content, maintype=main, subtype=sub, filename=name)
    return mail


def _said(codes: list[int]) -> str:
    return ", ".join(map(str, sorted(set(codes))))
