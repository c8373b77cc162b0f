"""A form that was sent, to what is said of which rows. Pure.

A button says what: `<what>` of all ticked rows, `<what>|<entity>` of one row, `undone|<entity>|<line>` of one line. All
that one page sends has one key, to which what is said is added: the same button pressed twice has the same key.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ml_assets.desk.lists import Snapshot
from ml_assets.desk.rows import Row
from ml_assets.errors import InputError
from ml_assets.predictions.feedback import OTHER, TAKEN_OVER, UNTOUCHED, WHATS, Said, Shown, Standing, What

# Rows about which one form can say something.
MOST_ROWS: Final = 500
_KEY: Final = re.compile(r"[0-9a-f]{32}")
_CONTROL: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f]")
# The button by which a colleague's row is taken over, and the word for an answer that a reason was right.
TAKE_OVER, RIGHT = "taken over", "RIGHT"
DONE: Final[Mapping[str, str]] = {
    "claimed": "claimed", "released": "released", "acted": "acted on", "resulted": "given a result",
    "judged": "given a reason", "noted": "given a note", "undone": "taken back",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Form:
    """The fields of a form: each name with all its values."""

    fields: Mapping[str, Sequence[str]]

    def one(self, name: str) -> str:
        """Return the last value of a field; empty if there is none."""
        return (self.fields.get(name) or [""])[-1]

    def all(self, name: str) -> list[str]:
        """Return the values of a field, each once."""
        return list(dict.fromkeys(self.fields.get(name, ())))


def sayings(form: Form, snapshot: Snapshot, standings: Mapping[str, Standing], actor: str) -> list[tuple[Said, Shown]]:
    """Return what a form says, with what was shown of each row.

    Raises:
        InputError: it does not say what, or of no row that is on the list.
    """
    what, _, rest = form.one("do").partition("|")
    entity, _, line = rest.partition("|")
    takes_over = what == TAKE_OVER
    known: What | None = next((one for one in WHATS if one == ("claimed" if takes_over else what)), None)
    if known is None:
        raise InputError("the form does not say what to do", to_do="press one of the buttons")
    key = form.one("key")
    if not _KEY.fullmatch(key):
        raise InputError("the form has no key", to_do="open the page again")
    entities = [entity] if entity else form.all("entity")
    if not entities:
        raise InputError("no row is ticked", to_do="tick the rows that you mean")
    if len(entities) > MOST_ROWS:
        raise InputError(f"{len(entities):,} rows are ticked, and a form takes at most {MOST_ROWS}")
    rows = {row.entity_id: row for row in snapshot.rows}
    if strange := [one for one in entities if one not in rows]:
        raise InputError(f"{strange[0][:80]!r} is not on this list", to_do="open the list again")
    note = _CONTROL.sub("", form.one("note")).strip() if known in ("acted", "judged", "noted", "resulted") else ""
    seen = _number(form.one("seen")) or 0
    found = []
    for one in entities:
        row, standing = rows[one], standings.get(one, UNTOUCHED)
        value = TAKEN_OVER if takes_over else _value(known, form, row)
        said = Said(
            entity_id=one,
            what=known,
            actor=actor,
            request_key=_key(key, known, value, note, line),
            value=value,
            note=note,
            undoes=_number(line) if known == "undone" else None,
            seen=seen,
        )
        found.append((said, row.seen(standing)))
    return found


def _value(what: What, form: Form, row: Row) -> str | None:
    match what:
        case "acted":
            return form.one("action") or row.cause or OTHER
        case "judged":
            chosen = form.one("cause")
            return (row.cause or OTHER) if chosen == RIGHT else chosen
        case "resulted":
            return form.one("result")
        case _:
            return None


def _key(page: str, *said: str | None) -> str:
    words = "\0".join(word or "" for word in said)
    return f"{page}:{hashlib.sha256(words.encode()).hexdigest()[:16]}"


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else None
