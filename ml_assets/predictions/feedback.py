"""What analysts say about rows of a work-list, and where a row stands by what was said. Pure: lines in, standing out.

Nothing that was said is changed: each word is a line, and an undo is a line about an earlier one. `standing` folds the
lines of a row; the view `acted_on` (`database/sql/acted_on.sql`) is the same rule in SQL, and a test compares the two.
`why_not` says which line may follow which; `database.feedback` asks it in the transaction that writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal, get_args

What = Literal["claimed", "released", "acted", "resulted", "judged", "noted", "undone"]
WHATS: Final[tuple[What, ...]] = get_args(What)
State = Literal["open", "in work", "acted on", "done"]

# What came of acting.
RESULTS: Final = ("averted", "partly averted", "in vain", "was no problem")
# What had been said of a row before a decision, as a slice; see `said_before`.
NOTHING_SAID, ACTED_ON, REASON_RIGHT, REASON_CORRECTED = "nothing said", "acted on", "reason right", "reason corrected"
# In place of a cause: none of those that the use case names.
OTHER: Final = "OTHER"
# A claim of what a colleague holds.
TAKEN_OVER: Final = "taken over"
LONGEST_NOTE: Final = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What the person saw of a row when she said something about it; probability and cost are None if hidden.

    `priority` is the place on the list, `cause` the main cause that was shown, `cut_off_at` the time until which
    something could be done.
    """

    decision_time: datetime
    priority: int
    probability: float | None
    expected_cost: float | None
    cause: str | None
    model_version: int
    mlflow_run_id: str
    cut_off_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """One thing that a person says of one row: `value` is the cause whose action was taken, the result or the cause.

    `undoes` is the id of the line that is taken back. `request_key` names the form: sent twice, it counts once.
    `seen` is the newest line about the list that the person had seen.
    """

    entity_id: str
    what: What
    actor: str
    request_key: str
    value: str | None = None
    note: str = ""
    undoes: int | None = None
    seen: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line of the ledger of feedback, as it was written; `until` is the end of a claim's lease.

    `shown_cause` is the main cause that the person was shown, None if there was none or it was hidden.
    """

    id: int
    entity_id: str
    what: What
    value: str | None
    note: str
    actor: str
    at: datetime
    until: datetime | None
    undoes: int | None
    request_key: str
    shown_cause: str | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a row stands: who has it and until when (None: for good, since it was acted on), and what was done.

    `action` is the cause whose action was taken, `cause` the one that it really was; `lines` are those that count, in
    order, `last` is the newest line of all.
    """

    owner: str | None = None
    lease_until: datetime | None = None
    acted: Line | None = None
    result: Line | None = None
    judged: Line | None = None
    lines: tuple[Line, ...] = ()
    last: Line | None = None

    @property
    def state(self) -> State:
        """The word for it."""
        if self.result is not None:
            return "done"
        if self.acted is not None:
            return "acted on"
        return "in work" if self.owner is not None else "open"


UNTOUCHED: Final = Standing()


def standing(lines: Sequence[Line], now: datetime) -> Standing:
    """Return where a row stands at a time by its lines, in the order in which they were written.

    A claim lasts until its lease ends, until it is released, or until a colleague takes it over. Who acts has the row.
    """
    taken_back = {line.undoes for line in lines if line.what == "undone"}
    counts = [line for line in lines if line.what != "undone" and line.id not in taken_back]
    newest: dict[str, Line] = {line.what: line for line in counts}
    acted = newest.get("acted")
    owner, until = None, None
    for line in counts:
        if line.what == "claimed":
            owner, until = line.actor, line.until
        elif line.what == "acted":
            owner, until = line.actor, None
        elif line.what == "released":
            owner, until = None, None
    if until is not None and until <= now and acted is None:
        owner, until = None, None
    if acted is not None and owner is None:
        owner = acted.actor
    return Standing(
        owner,
        until,
        acted,
        newest.get("resulted") if acted is not None else None,
        newest.get("judged"),
        tuple(counts),
        lines[-1] if lines else None,
    )


def said_before(lines: Sequence[Line], decision_time: datetime) -> str:
    """Return what people had said of a row by the time of a decision about it, in one of four words.

    Only what was known then counts, not even that something was taken back later: what people say once the outcome is
    known would tell it. A reason that was judged goes before an action; claims and notes say nothing of the row, nor
    does a reason given for a row of which none was shown.
    """
    at = standing([line for line in lines if line.at <= decision_time], decision_time)
    if at.judged is not None and at.judged.shown_cause is not None:
        return REASON_RIGHT if at.judged.value == at.judged.shown_cause else REASON_CORRECTED
    return ACTED_ON if at.acted is not None else NOTHING_SAID


def by_entity(lines: Iterable[Line]) -> dict[str, list[Line]]:
    """Return the lines of each entity, in their order."""
    found: dict[str, list[Line]] = {}
    for line in lines:
        found.setdefault(line.entity_id, []).append(line)
    return found


def colleague(said: Said, lines: Sequence[Line], now: datetime) -> Line | None:
    """Return the line of a colleague that stands against what is said: both are shown to the person. None if none does.

    A colleague has the row by a lease that runs, or has said something since the person looked. Notes stand against
    nothing, and a claim may be taken over.
    """
    if said.what == "noted":
        return None
    at = standing(lines, now)
    theirs = [line for line in at.lines if line.actor != said.actor and line.what != "noted"]
    if said.value == TAKEN_OVER and said.what == "claimed":
        return None
    if at.owner not in (None, said.actor) and (at.lease_until is not None or at.acted is None):
        return theirs[-1]
    unseen = [line for line in theirs if line.id > said.seen and line.what not in ("claimed", "released")]
    return unseen[-1] if unseen else None


def why_not(said: Said, lines: Sequence[Line], now: datetime, causes: Iterable[str]) -> str:
    """Return why something cannot be said of a row, whoever says it; empty if it can. `causes` are the use case's."""
    at = standing(lines, now)
    known = {*causes, OTHER}
    if len(said.note) > LONGEST_NOTE:
        return f"the note has {len(said.note):,} characters, and at most {LONGEST_NOTE:,} are kept"
    match said.what:
        case "acted" | "judged" if said.value not in known:
            return f"{said.value!r} is none of the causes {', '.join(sorted(known))}"
        case "acted" | "judged" if said.value == OTHER and not said.note and len(known) > 1:
            return "say in the note what it was, as it is none of the causes of the list"
        case "resulted" if said.value not in RESULTS:
            return f"{said.value!r} is no result; it is one of {', '.join(RESULTS)}"
        case "resulted" if at.acted is None:
            return "nothing was done about it yet: say first what was done"
        case "noted" if not said.note:
            return "the note is empty"
        case "released" if at.owner != said.actor or at.acted is not None:
            return "there is no claim of yours to release"
        case "claimed" if at.acted is not None and said.value != TAKEN_OVER:
            return f"{at.acted.actor} has acted on it already"
        case "undone":
            mine = [line.id for line in at.lines if line.actor == said.actor]
            if said.undoes not in mine:
                return "only what you said yourself, and have not taken back, can be undone"
        case _:
            pass
    return ""


def lease(said: Said, now: datetime, length: timedelta) -> datetime | None:
    """Return until when a claim holds; None for what is no claim."""
    return now + length if said.what == "claimed" else None
