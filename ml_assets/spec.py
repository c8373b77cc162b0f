"""What a use case is: everything that the lifecycle needs to know of a model, and nothing of how it runs.

A data scientist fills in one `UseCase` in one folder; the stages (landing to scoring) are written once and
read it. Nothing here imports Dagster, MLflow or scikit-learn at run time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ml_assets.calendars import BusinessCalendar
from ml_assets.contracts import Event, ReferenceRow

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sklearn.base import BaseEstimator


@dataclass(frozen=True, slots=True)
class EventSpec:
    """One topic, and how its events become a curated table.

    `key` tells duplicates: of the events that share it, the one that was known first stays. `rules` maps the
    reason why a row is quarantined to an SQL predicate over the contract's columns that is true for a bad row.
    `max_dead_letter_rate` is the share of a date's messages that may break the contract, `silence` for how long the
    topic may have nothing new.
    `history` is how far back the features of a decision look; older rows are not read.
    """

    name: str
    topic: str
    contract: type[Event]
    description: str
    key: tuple[str, ...] = ("event_id",)
    rules: Mapping[str, str] = field(default_factory=dict)
    max_quarantine_rate: float = 0.02
    max_dead_letter_rate: float = 0.01
    silence: timedelta = timedelta(days=4)
    history: timedelta = timedelta(days=90)


@dataclass(frozen=True, slots=True)
class ReferenceSpec:
    """Reference data from dated files. As of a time, the SQL sees the version in force of each `key`."""

    name: str
    contract: type[ReferenceRow]
    key: tuple[str, ...]
    description: str
    rules: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DailySpec:
    """A table for the feature SQL that `daily/<name>.sql` gives day by day, of what became known; see `features.as_of`.

    The parts of days that are over are kept in the lake, so that a window of months costs a few rows a day. `history`
    is how many days of it a decision sees, its own included.
    """

    name: str
    description: str
    history: timedelta = timedelta(days=90)


@dataclass(frozen=True, slots=True)
class Slot:
    """A time of day (UTC) at which decisions are made on a decision date."""

    name: str
    at: time


@dataclass(frozen=True, slots=True)
class DecisionTime:
    """One slot on one date: features see what was known by `as_of` and nothing else."""

    slot: str
    as_of: datetime

    @property
    def decision_date(self) -> date:
        """The partition of the features decided at this time."""
        return self.as_of.date()


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a decision may go wrong, in the terms of whoever acts on it, and what is done about it."""

    code: str
    name: str
    action: str


@dataclass(frozen=True, slots=True)
class Feature:
    """A column of the feature SQL that models may use.

    `cause` is the code of the cause that the feature tells of; without one it tells what kind of decision it is.
    `explained_by` is for a feature that is wholly or partly a formula of others: given their columns by name (n,), the
    formula's value (n,), in which a missing value counts as 0. Reasons then go to the causes of those others.
    """

    name: str
    description: str
    unit: str = ""
    kind: Literal["numeric", "categorical"] = "numeric"
    cause: str = ""
    explained_by: Callable[[Mapping[str, NDArray[Any]]], NDArray[Any]] | None = None


@dataclass(frozen=True, slots=True)
class LabelSpec:
    """The outcome. `known_at` tells when the outcome of a date is known; the label sees what was known by then."""

    name: str
    description: str
    known_at: Callable[[date], datetime]


@dataclass(frozen=True, slots=True)
class SplitSpec:
    """How a time-ordered training set is cut: train, then calibration, then an unseen test window.

    All counts are decision dates. Training uses labels known at least `embargo` before the first decision of
    the test window. `folds` walk-forward folds of `fold_days` each are the end of the train part: candidates are
    measured and searched on them (see `learning.folds`); 0 folds leaves that out.

    The calibration days give the shape of the calibrated probabilities. `level_from` tells which days give their level
    (calibration in the large): those days too, or all days `learned` from, train and calibration. The first suits a
    level that drifts on; the second features that follow the level themselves, where a few days that happen to lie in a
    stress would add it a second time and keep it for good.

    With `refit`, the model is fitted again on train and calibration days once its calibration is known: what scores has
    learned from the newest outcomes too. The shape of its calibration is that of a model which had not seen these days;
    the level is set anew, or what was new in them would count twice.
    """

    train_days: int
    calibration_days: int
    test_days: int
    embargo: timedelta = timedelta(days=1)
    folds: int = 0
    fold_days: int = 5
    level_from: Literal["calibration", "learned"] = "calibration"
    refit: bool = False


@dataclass(frozen=True, slots=True)
class Uniform:
    """A number from `low` to `high`, drawn evenly, or evenly in its logarithm."""

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True, slots=True)
class Integer:
    """A whole number from `low` to `high`, both included."""

    low: int
    high: int
    log: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few values."""

    options: tuple[bool | int | float | str | None, ...]


@dataclass(frozen=True, slots=True)
class SearchSpec:
    """Which parameters of a candidate's model are searched, and the budget: whichever of the two is used up first.

    `seconds` is checked between folds, so the fit that is running then is finished.
    """

    space: Mapping[str, Uniform | Integer | Choice]
    trials: int = 20
    seconds: float = 300.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model to fit: `build(features, seed)` returns an unfitted scikit-learn classifier over a feature frame.

    The candidate with `is_rule` is the business rule that every model must beat. With `search`, parameters of the
    pipeline's last step are searched before it is fitted.
    """

    name: str
    description: str
    build: Callable[[tuple[Feature, ...], int], BaseEstimator]
    is_rule: bool = False
    search: SearchSpec | None = None


@dataclass(frozen=True, slots=True)
class SliceSpec:
    """A way to divide the decisions, in no part of which a challenger may get much worse.

    `source` is a column of the features table, or `attributes.<key>`. A part with fewer than `min_positives` fails in
    the test window is shown, not judged. `max_loss` is how much of the gate's metric may be lost in a part, against
    the champion, or the rule while there is none. `focus` is a value of the slice that is a question of its own: it is
    reported month by month beside the whole (`lifecycle.backtest.by_month`) under the slice's name.

    With `focus_gain`, the gate asks there that the model is above the rule by at least this share of the rule's metric,
    that the interval of that share begins at or above `focus_gain_low`, and that there are `min_positives` fails.
    """

    name: str
    source: str
    min_positives: int = 100
    max_loss: float = 0.05
    focus: str = ""
    focus_gain: float | None = None
    focus_gain_low: float = 0.0

    def __post_init__(self) -> None:
        if self.focus_gain is not None and not self.focus:
            raise ValueError(f"slice {self.name}: focus_gain asks for a gain in the focus, and there is no focus")


@dataclass(frozen=True, slots=True)
class ActionSpec:
    """What acting on a decision means in money and time, so that models can be compared by what they save.

    `cost` is what it costs to act on one decision, in the use case's currency; `effectiveness` is the share of the
    fails acted on that are avoided; `until` is the time (UTC) on the outcome date after which nothing helps.
    """

    cost: float = 0.0
    effectiveness: float = 1.0
    until: time = time(16)


# Tables that `features.as_of` makes for the feature SQL, or while it runs it.
_OWN_TABLES = {"business_days", "decisions", "decisions_before", "incoming", "label_of_decisions", "labelled"}

# Acting is free and always helps.
FREE_ACTION = ActionSpec()


@dataclass(frozen=True, slots=True)
class GateSpec:
    """What a challenger must show on the unseen window to be promoted. Whatever is missing counts as no.

    - `metric` is what models are compared by, `indifference` how much less of it before the test window says nothing:
      of candidates as close as that to the best, the one listed first is the challenger, so list the simplest first
    - `min_lift` is PR-AUC over the base rate, as a difference; `floors` maps further metrics of
      `learning.metrics.evaluate` to their least values
    - `min_gain` is by how much of the metric it must beat the champion (may be 0) and the rule
    - `max_regret` is how far the low end of the interval of the gain over the champion may lie below 0: a challenger
      need not be proved better, but must not be likely to be worse by more; `min_gain_over_rule_low` is the same end
      for the gain over the rule, which does have to be beaten
    - `confidence` and `resamples` are those of the bootstrap over days
    - `max_calibration_error` is the expected calibration error; `max_score_psi` the population stability index of the
      scores, test against calibration window (above 0.25 is commonly called a major shift)
    - `max_serving_ms` is the median time of scoring one decision with the saved model, in milliseconds
    - a training set in which one feature alone has an AUC above `max_feature_auc` is not trained on: nothing honest is
      that good
    """

    min_test_positives: int = 100
    metric: Literal["pr_auc", "per_day_pr_auc", "brier_skill"] = "pr_auc"
    indifference: float = 0.0
    min_lift: float = 0.02
    floors: Mapping[str, float] = field(default_factory=dict)
    min_gain: float = 0.0
    max_regret: float = 0.01
    min_gain_over_rule_low: float = 0.0
    confidence: float = 0.95
    resamples: int = 400
    max_calibration_error: float = 0.05
    max_score_psi: float = 0.25
    slices: tuple[SliceSpec, ...] = ()
    max_serving_ms: float = 20.0
    max_feature_auc: float = 0.95


@dataclass(frozen=True)
class UseCase:
    """One model of Markets Operations, from its events to its work-list.

    `folder` holds `features/decisions.sql` (what is decided: entity_id, outcome_date, cost_if_fail, attributes),
    any number of further `features/*.sql` (entity_id and features) and `label.sql` (entity_id, label); for each of
    `daily` a `daily/<name>.sql`.
    `capacity` is how many decisions the team can act on per slot and date, `action` what that costs and brings.
    `value` is where the value at stake is found: a column of the features table, or `attributes.<key>`; empty if it is
    not known. `publication_pause` is the longest pause between two publications of its events, beyond a business day;
    longer ones are reported as stale data. `causes` are what reasons are grouped by; `cause_for(code, attributes)`
    renames one for a decision, as one side's lack of securities is the other side's counterparty that is short.
    `limits` say what the model must not be used for and where it is weak: without them no model is registered.
    """

    name: str
    title: str
    description: str
    entity: str
    owner: str
    tier: Literal["high", "medium", "low"]
    folder: Path
    calendar: BusinessCalendar
    first_partition: date
    events: tuple[EventSpec, ...]
    slots: tuple[Slot, ...]
    features: tuple[Feature, ...]
    label: LabelSpec
    split: SplitSpec
    candidates: tuple[Candidate, ...]
    capacity: int
    references: tuple[ReferenceSpec, ...] = ()
    daily: tuple[DailySpec, ...] = ()
    gate: GateSpec = GateSpec()
    action: ActionSpec = FREE_ACTION
    value: str = ""
    currency: str = "EUR"
    publication_pause: timedelta = timedelta()
    seed: int = 20260105
    causes: tuple[Cause, ...] = ()
    cause_for: Callable[[str, Mapping[str, Any]], str] | None = None
    limits: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for what, names in (
            ("event", [e.name for e in self.events] + [r.name for r in self.references] + [t.name for t in self.daily]),
            ("feature", [f.name for f in self.features]),
            ("candidate", [c.name for c in self.candidates]),
            ("slot", [s.name for s in self.slots]),
            ("slice", [s.name for s in self.gate.slices]),
            ("cause", [c.code for c in self.causes]),
        ):
            twice = sorted({n for n in names if names.count(n) > 1})
            if twice:
                raise ValueError(f"use case {self.name}: {what} names are not unique: {', '.join(twice)}")
        named = [*(e.name for e in self.events), *(r.name for r in self.references), *(t.name for t in self.daily)]
        if taken := [name for name in named if name.lower() in _OWN_TABLES]:
            raise ValueError(
                f"use case {self.name}: no event, reference or daily table can be called {taken[0]}: the feature SQL "
                "has a table of that name already; give it another one"
            )
        if unknown := sorted({f.cause for f in self.features} - {c.code for c in self.causes} - {""}):
            raise ValueError(f"use case {self.name}: features name causes that are not declared: {', '.join(unknown)}")
        if sum(c.is_rule for c in self.candidates) != 1:
            raise ValueError(f"use case {self.name}: exactly one candidate is the business rule (is_rule=True)")

    def event(self, name: str) -> EventSpec:
        """Return the event of that name.

        Raises:
            KeyError: the use case has no such event.
        """
        for event in self.events:
            if event.name == name:
                return event
        raise KeyError(f"use case {self.name} has no event {name!r}; it has {[e.name for e in self.events]}")

    def look_back(self, event: EventSpec) -> timedelta:
        """Return how far back events must reach for features to be made of nothing else: through the daily tables."""
        return event.history + max((table.history for table in self.daily), default=timedelta())

    def decision_times(self, decision_date: date) -> tuple[DecisionTime, ...]:
        """Return the decision times of a date, none on a day that is not a business day."""
        if not self.calendar.is_business_day(decision_date):
            return ()
        return tuple(
            DecisionTime(slot.name, datetime.combine(decision_date, slot.at, tzinfo=UTC)) for slot in self.slots
        )

    @property
    def needs_approval(self) -> bool:
        """Whether a person has to approve each promotion: in the tier `high`."""
        return self.tier == "high"

    @property
    def rule(self) -> Candidate:
        """The business rule among the candidates."""
        return next(c for c in self.candidates if c.is_rule)

    @cached_property
    def feature_sql(self) -> dict[str, str]:
        """The SQL of each feature file by its stem; `decisions` is the spine.

        Raises:
            FileNotFoundError: there is no `features/decisions.sql`.
        """
        files = sorted((self.folder / "features").glob("*.sql"))
        sql = {file.stem: file.read_text(encoding="utf-8") for file in files}
        if "decisions" not in sql:
            raise FileNotFoundError(f"use case {self.name}: {self.folder / 'features' / 'decisions.sql'} is missing")
        return sql

    @cached_property
    def daily_sql(self) -> dict[str, str]:
        """The SQL of each daily table by its name.

        Raises:
            FileNotFoundError: there is no file for a declared table.
        """
        files = {table.name: self.folder / "daily" / f"{table.name}.sql" for table in self.daily}
        return {name: file.read_text(encoding="utf-8") for name, file in files.items()}

    @cached_property
    def label_sql(self) -> str:
        """The SQL of the label."""
        return (self.folder / "label.sql").read_text(encoding="utf-8")

    @cached_property
    def feature_set_hash(self) -> str:
        """Twelve hex digits that change when the definition of any feature changes."""
        digest = hashlib.sha256()
        for name, sql in [*self.feature_sql.items(), *self.daily_sql.items()]:
            digest.update(f"{name}\0{sql}\0".encode())
        for feature in self.features:
            digest.update(f"{feature.name}:{feature.kind}\0".encode())
        return digest.hexdigest()[:12]
