"""A message as people and programs read it: the text of a mail, the JSON of a webhook, Slack's body.

Every text of it is one clean line by then (`Rule.found`), so none can end a header or begin one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC
from typing import Any, Final

from ml_assets.alerts.compose import Bundle, Notice
from ml_assets.markdown import shown

# Of more events than these a message gives the number.
_LINES: Final = 50
_SUBJECT: Final = 160
_TROUBLES: Final = {"error": "cannot be evaluated", "no data": "has no data", "not run": "was not run"}
_SLACK: Final = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


@dataclass(frozen=True, slots=True)
class Message:
    """A message with an id by which a receiver tells a repeat; mail carries the `files`, by name."""

    id: str
    subject: str
    text: str
    body: Mapping[str, Any]
    files: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def slack(self) -> dict[str, Any]:
        """The body in Slack's form; nothing in it is a mention or a link of its own."""
        return {"text": f"{self.subject}\n{self.text}".translate(_SLACK), "link_names": False, "unfurl_links": False}


def write_message(id: str, bundle: Bundle, *, runbooks: str) -> Message:  # noqa: A002 - it is the message's id
    """Return the message of a bundle; `runbooks` is the address of the page of runbooks."""
    first = bundle.notices[0]
    subject = shown(f"[{first.severity}] {_subject(bundle)}")[:_SUBJECT]
    lines = [_opening(bundle), *(_line(one) for one in bundle.notices[:_LINES])]
    if (more := len(bundle.notices) - _LINES) > 0:
        lines.append(f"and {more:,} more: `ml-assets alerts list` has all")
    sections = dict.fromkeys((one.title, one.runbook) for one in bundle.notices[:_LINES] if one.runbook)
    lines += ["", *(f"{title}: {runbooks}#{runbook}" for title, runbook in sections), "", f"message {id}"]
    body = {
        "id": id,
        "form": bundle.form,
        "severity": first.severity,
        "subject": subject,
        "follows_from": bundle.cause or None,
        "count": len(bundle.notices),
        "events": [_as_json(one, runbooks) for one in bundle.notices[:_LINES]],
    }
    return Message(id, subject, "\n".join(lines), body)


def write_report_message(id: str, notice: Notice, *, page: str, files: Mapping[str, bytes]) -> Message:  # noqa: A002
    """Return the message of a report that people are sent; `page` is its address."""
    subject = shown(f"{notice.title}, {notice.key} ({notice.use_case})")[:_SUBJECT]
    attached = ["", f"Attached: {', '.join(files)}"] if files else []
    body = {
        "id": id,
        "form": "report",
        "subject": subject,
        "use_case": notice.use_case,
        "report": notice.rule,
        "title": notice.title,
        "date": notice.key,
        "summary": notice.message,
        "page": page,
    }
    text = "\n".join([notice.message, "", page, *attached, "", f"message {id}"])
    return Message(id, subject, text, body, files)


def _subject(bundle: Bundle) -> str:
    first, number = bundle.notices[0], len(bundle.notices)
    if bundle.form != "alert":
        return f"{number:,} events of alerts: {'digest' if bundle.form == 'digest' else 'summary after an outage'}"
    about = f"{first.use_case}: {first.title}" + (f", {first.key}" if first.key else "") + f" {_state(first)}"
    if bundle.cause:
        about = f"{bundle.cause}: {about}"
    return about if number == 1 else f"{about}, and {number - 1:,} more"


def _opening(bundle: Bundle) -> str:
    if bundle.form == "digest":
        return "More has happened than this channel takes in an hour; this is all that is left of it:\n"
    if bundle.form == "summary":
        return "These could not be sent when they happened; what closed meanwhile is over:\n"
    if bundle.cause:
        return f"What follows from an alert that is open, {bundle.cause}:\n"
    return "" if len(bundle.notices) == 1 else "The first, and what came or follows from it:\n"


def _line(notice: Notice) -> str:
    when = f"{notice.at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    return f"- {when} [{notice.severity}] {notice.use_case}/{notice.rule} {_state(notice)}: {notice.message}"


def _state(notice: Notice) -> str:
    if notice.what == "closed":
        return "is over"
    if notice.what == "repeated":
        return "is still open"
    return _TROUBLES.get(notice.kind, "opened")


def _as_json(notice: Notice, runbooks: str) -> dict[str, Any]:
    return {
        "id": notice.event_id,
        "event": notice.what,
        "kind": notice.kind,
        "use_case": notice.use_case,
        "rule": notice.rule,
        "title": notice.title,
        "severity": notice.severity,
        "key": notice.key,
        "message": notice.message,
        "at": notice.at.astimezone(UTC).isoformat(),
        "runbook": f"{runbooks}#{notice.runbook}" if notice.runbook else None,
    }
