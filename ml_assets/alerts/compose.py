"""What goes into which message: events that follow from one cause together, within the budget of the sink.

A budget is a number of messages in an hour. What would go beyond it is one digest; what comes after that waits until
there is room. After an outage everything that was missed is one summary, not a replay. A report is a message of its
own, outside of the budget.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from ml_assets.alerts.rule import SEVERITIES, Severity

Form = Literal["alert", "digest", "summary", "report"]
REPORT: Final = "report"
# What has waited for longer than this was held up by an outage.
_OUTAGE: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Notice:
    """An event that one sink is to be told of; `due` is from when on it could have been.

    `assets` are those that its rule is about, as `<use case>/<asset>`; `files` is the folder of a report.
    """

    event_id: str
    what: str
    kind: str
    use_case: str
    rule: str
    title: str
    severity: Severity
    key: str
    message: str
    runbook: str
    at: datetime
    due: datetime
    assets: tuple[str, ...] = ()
    files: str = ""

    @property
    def of_rule(self) -> tuple[str, str]:
        """Use case and rule."""
        return self.use_case, self.rule


@dataclass(frozen=True, slots=True)
class Cause:
    """A rule that has an alert open now, which may be what others follow from."""

    use_case: str
    rule: str
    title: str
    assets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Bundle:
    """The events of one message, the gravest first; `cause` is what they follow from, if not one of them."""

    form: Form
    notices: tuple[Notice, ...]
    cause: str = ""


def compose(
    notices: Sequence[Notice],
    *,
    upstream: Mapping[str, Set[str]],
    open_now: Sequence[Cause] = (),
    budget: int,
    sent: int,
    now: datetime,
) -> list[Bundle]:
    """Return the messages to send now, of which some notices may be in none: they wait for room.

    `upstream` has all assets that an asset is made from, `sent` is how many messages the sink had in the last hour.
    """
    reports = [Bundle("report", (notice,)) for notice in notices if notice.kind == REPORT]
    return reports + _of_alerts(
        [notice for notice in notices if notice.kind != REPORT],
        upstream=upstream, open_now=open_now, budget=budget, sent=sent, now=now,
    )  # fmt: skip


def _of_alerts(
    notices: Sequence[Notice],
    *,
    upstream: Mapping[str, Set[str]],
    open_now: Sequence[Cause],
    budget: int,
    sent: int,
    now: datetime,
) -> list[Bundle]:
    if not notices:
        return []
    # The last message of an hour is kept for what is critical.
    kept = 0 if budget == 1 or any(notice.severity == "critical" for notice in notices) else 1
    room = budget - kept - sent
    if room <= 0:
        return []
    if now - min(notice.due for notice in notices) > _OUTAGE:
        return [Bundle("summary", _gravest_first(notices))]
    groups = _groups(notices, upstream, open_now)
    if len(groups) <= room:
        return groups
    alone, rest = groups[: room - 1], groups[room - 1 :]
    return [*alone, Bundle("digest", _gravest_first([one for group in rest for one in group.notices]))]


def _groups(notices: Sequence[Notice], upstream: Mapping[str, Set[str]], open_now: Sequence[Cause]) -> list[Bundle]:
    """Return one message for each cause, the gravest first: a rule, and rules whose assets are made from its own."""
    rules = {one.of_rule: Cause(*one.of_rule, one.title, one.assets) for one in notices if _is_cause(one)}
    causes = {(one.use_case, one.rule): one for one in open_now} | rules
    by_cause: dict[tuple[str, str], list[Notice]] = {}
    for notice in notices:
        by_cause.setdefault(_root(notice, causes, upstream), []).append(notice)
    made = []
    for cause, members in by_cause.items():
        title = "" if any(one.of_rule == cause for one in members) else causes[cause].title
        made.append(Bundle("alert", _gravest_first(members, cause), title))
    return sorted(made, key=lambda group: min(_grave(one) for one in group.notices))


def _root(notice: Notice, causes: Mapping[tuple[str, str], Cause], upstream: Mapping[str, Set[str]]) -> tuple[str, str]:
    """Return the rule that a notice follows from: the one farthest upstream that has an alert, else its own."""
    above = _above(notice.assets, upstream)
    found = [name for name, cause in causes.items() if name != notice.of_rule and above & set(cause.assets)]
    return min(found, key=lambda name: (len(_above(causes[name].assets, upstream)), name), default=notice.of_rule)


def _is_cause(notice: Notice) -> bool:
    """Return whether others may follow from it: a rule that found something, not one that could not be evaluated."""
    return notice.kind == "firing" and notice.what != "closed"


def _above(assets: Iterable[str], upstream: Mapping[str, Set[str]]) -> set[str]:
    own = set(assets)
    return {one for asset in own for one in upstream.get(asset, ())} - own


def _gravest_first(notices: Iterable[Notice], first: tuple[str, str] | None = None) -> tuple[Notice, ...]:
    return tuple(sorted(notices, key=lambda one: (one.of_rule != first, *_grave(one))))


def _grave(notice: Notice) -> tuple[int, datetime, str]:
    return SEVERITIES.index(notice.severity), notice.at, notice.event_id
