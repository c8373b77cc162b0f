"""What a use case is: everything that the lifecycle needs to know about a model, and nothing about how it runs.

A data scientist fills in one `UseCase` in one folder. The stages (landing to scoring) are written once and read it.
Nothing here imports Dagster, MLflow or scikit-learn at run time.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from ml_assets.calendars import BusinessCalendar
from ml_assets.contracts import Event, ReferenceRow
from ml_assets.errors import InputError, NotFoundError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from sklearn.base import BaseEstimator


@dataclass(frozen=True, slots=True)
class EventSpec:
    """One topic, and how its events become a curated table.

    - `key` names the columns that identify a row. With the key `event_id`, rows that share it are copies of one event:
      the one that was known first stays. Any other key identifies a thing that may be published again, such as an
      instruction that is amended: only rows that agree in all columns are copies, the others are its versions. The SQL
      sees the version that was published last, of those that were known. `<name>_versions` has all versions that were
      known, with `replaced_at`; see `features.versions`.
    - `rules` maps the reason why a row is quarantined to an SQL predicate over the contract's columns. The predicate is
      true for a bad row.
    - `max_quarantine_rate` is the share of a date's rows that may be quarantined, `max_dead_letter_rate` the share of a
      date's messages that may break the contract, `silence` how long the topic may have nothing new.
    - `history` is how far back the features of a decision look; older rows are not read.
    - `earliest` and `clock_tolerance` bound `event_time`: it must be on or after the date `earliest`, and at most
      `clock_tolerance` after the row was known, since clocks differ. Rows with another time are quarantined.
      `landing.rules` has the rules for the rows of every contract.
    - `codes` maps columns to their known codes; rows with other codes are kept, and counted on the asset.
    - `edition` is the column with the edition in which a row was published, for data whose corrections are published
      as a whole. Of the rows that share `edition_of`, the SQL sees only those of the newest edition that was known.
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
    earliest: date = date(2000, 1, 1)
    clock_tolerance: timedelta = timedelta(minutes=5)
    codes: Mapping[str, frozenset[str]] = field(default_factory=dict)
    edition: str = ""
    edition_of: tuple[str, ...] = ()

    @property
    def has_versions(self) -> bool:
        """Whether rows with the same key are versions of one thing rather than copies of one event."""
        return self.key != ("event_id",)

    @property
    def identity(self) -> tuple[str, ...]:
        """The columns that are equal in all copies of a row."""
        return tuple(self.contract.__struct_fields__) if self.has_versions else self.key

    @property
    def tables(self) -> tuple[str, ...]:
        """The tables that the SQL can name to read the event."""
        return (self.name, f"{self.name}_versions") if self.has_versions else (self.name,)


@dataclass(frozen=True, slots=True)
class ReferenceSpec:
    """Reference data from dated files. As of a time, the SQL sees the version in force of each `key`.

    `rules` quarantines rows, as `EventSpec.rules` does.
    """

    name: str
    contract: type[ReferenceRow]
    key: tuple[str, ...]
    description: str
    rules: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DailySpec:
    """A table for the feature SQL: `daily/<name>.sql` gives what became known on each day; see `features.as_of`.

    Days that are over are kept in the lake, so that a window of months reads only a few rows per day. `history` is how
    far back a decision sees the table, its own day included.

    `waits_for` names the events whose missing rows have a meaning: for example, no status means no fail. A decision
    waits until the topics of all of them have landed up to the start of its day. None means the events that the SQL
    names; () means that no missing row has a meaning.
    """

    name: str
    description: str
    history: timedelta = timedelta(days=90)
    waits_for: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class OutcomeDates:
    """Outcome dates from `first` to `last`, both included; without `last` all dates from `first` on."""

    first: date
    last: date | None = None


@dataclass(frozen=True, slots=True)
class Slot:
    """A time of day (UTC) at which decisions are made on a decision date.

    With `days_before` the slot decides everything open of the outcome date that is `days_before` business days after
    the decision date. With `onwards` it decides everything open of all later outcome dates too. An entity that was
    decided earlier and is not decided again then leaves the work-list. A slot without `days_before` decides only some
    of what is open, for example the trades of one date: the rest stays on the list by its earlier decision.

    Raises:
        ValueError: `days_before` is negative, or `onwards` is set without it.
    """

    name: str
    at: time
    days_before: int | None = None
    onwards: bool = False

    def __post_init__(self) -> None:
        if self.days_before is None and self.onwards:
            raise InputError(f"slot {self.name}: onwards needs days_before, the first of the outcome dates it means")
        if self.days_before is not None and self.days_before < 0:
            raise InputError(f"slot {self.name}: days_before is {self.days_before}; no outcome is before its decision")


@dataclass(frozen=True, slots=True)
class DecisionTime:
    """One slot on one date: features see what was known by `as_of` and nothing else.

    `day` is the business day to which the slot belongs, if it is not the day of `as_of`: on a Saturday the slots are
    those of Friday.
    """

    slot: str
    as_of: datetime
    day: date | None = None

    @property
    def decision_date(self) -> date:
        """The partition of the features decided at this time."""
        return self.day or self.as_of.date()


@dataclass(frozen=True, slots=True)
class Cause:
    """Why an outcome may go wrong, in the terms of the people who act on it, and the action to take."""

    code: str
    name: str
    action: str


@dataclass(frozen=True, slots=True)
class Feature:
    """A column of the feature SQL that models may use.

    `cause` is the code of the cause to which the feature belongs. A feature without a cause describes what kind of
    decision it is. `explained_by` is for a feature that is wholly or partly a formula of other features. It takes their
    columns by name, each of shape (n,), and returns the formula's value, shape (n,), in which a missing value counts
    as 0. The feature's reasons then go to the causes of those other features.
    """

    name: str
    description: str
    unit: str = ""
    kind: Literal["numeric", "categorical"] = "numeric"
    cause: str = ""
    explained_by: Callable[[Mapping[str, NDArray[Any]]], NDArray[Any]] | None = None


@dataclass(frozen=True, slots=True)
class LabelSpec:
    """The outcome, and when it is known.

    `known_at` maps any outcome date, weekends and holidays too, to the time at which its outcome is known for all
    entities: the end of the horizon. The use case chooses the horizon, and its length has no limit. If an event has not
    landed by then, label.sql concludes that it did not happen. So the label waits until each partition of the topics of
    all events in `waits_for` has landed up to that time. None means the events that label.sql names.

    label.sql may give a column `known_at` (TIMESTAMPTZ) beside entity_id and label: when this entity's outcome became
    known, for outcomes that are known as soon as they happen. Null means: at the end of the horizon.

    `probability_of` is the use case's own word for label 1: screens show p(fail), or p(late).
    """

    name: str
    description: str
    known_at: Callable[[date], datetime]
    waits_for: tuple[str, ...] | None = None
    probability_of: str = "fail"


@dataclass(frozen=True, slots=True)
class Need:
    """A key of the decisions' attributes that the references should give.

    `attribute` is that key, and `by` the attribute with which it is looked up. The features asset counts the decisions
    that lack `attribute` by their value of `by`; `without` says what the lack means.
    """

    attribute: str
    by: str
    without: str


@dataclass(frozen=True, slots=True)
class PlaceSpec:
    """Places with business days of their own: a decision and its outcome follow the calendar of their place.

    `column` names the place: a field of an event, and a key of the decisions' attributes. `calendars` has the calendar
    of each place. A place without a calendar follows the use case's calendar and is reported.
    `known_at(outcome_date, calendar)` is when the outcome of a date is known at the places of a calendar; without it,
    `LabelSpec.known_at` applies to all places.
    """

    column: str
    calendars: Mapping[str, BusinessCalendar]
    known_at: Callable[[date, BusinessCalendar], datetime] | None = None


@dataclass(frozen=True, slots=True)
class SplitSpec:
    """How a time-ordered training set is cut: train, then calibration, then an unseen test window.

    All counts are decision dates. Training uses labels known at least `embargo` before the first decision of the test
    window. The train part ends with `folds` walk-forward folds of `fold_days` each. Candidates are measured and
    searched on these folds (see `learning.folds`); 0 means no folds.

    The calibration days set the shape of the calibrated probabilities. `level_from` names the days that set their level
    (calibration in the large): `calibration` takes the same days, `learned` all days learned from (train and
    calibration). `calibration` suits a level that keeps drifting. `learned` suits features that follow the level
    themselves: otherwise a few calibration days in a period of stress would add the stress a second time, for good.

    With `refit`, the model is fitted again on train and calibration days once its calibration is known, so that the
    model that scores has learned from the newest outcomes too. The shape of its calibration comes from a model that had
    not seen these days. The level is set again, because otherwise it would count twice what was new in these days.

    Nothing is trained or judged across more than `longest_gap` without a labelled decision date. The odds of the
    outcome, on a date and in a part of the split, may be at most `base_rate_band` times higher or lower than in the
    months before. Beyond that the labels are probably wrong, for example because a feed was late, and the training set
    is refused. math.inf refuses nothing.

    A model is fitted on at most `fit_rows` decisions, which bounds the memory that this takes. If there are more, all
    with the outcome are taken and as many others as there is room for, by chance; if those with the outcome alone would
    take more than half of the room, some of them. Each then counts for as many as it stands for, so that probabilities
    keep their level. What calibrates and tests is never sampled. None fits on all, however many.
    """

    train_days: int
    calibration_days: int
    test_days: int
    embargo: timedelta = timedelta(days=1)
    folds: int = 0
    fold_days: int = 5
    level_from: Literal["calibration", "learned"] = "calibration"
    refit: bool = False
    longest_gap: timedelta = timedelta(days=45)
    base_rate_band: float = 8.0
    fit_rows: int | None = 1_000_000


@dataclass(frozen=True, slots=True)
class Uniform:
    """A number from `low` to `high`, drawn uniformly; with `log`, uniformly in its logarithm."""

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
    """Which parameters of a candidate's model are searched, and the budget.

    The search ends after `trials` trials or after `seconds`, whichever comes first. `seconds` is checked between folds,
    so a fit that is running is finished.
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


# Source of a slice: what people had said at the desk of a decision's row by the time of the decision.
FEEDBACK = "desk.feedback"


@dataclass(frozen=True, slots=True)
class SliceSpec:
    """A way to divide the decisions into parts; a challenger may not get much worse in any of them.

    `source` is a column of the features table, `attributes.<key>`, or `FEEDBACK`: whether people had acted on the same
    entity and outcome date before, and whether they had found the reason right (`predictions.feedback.said_before`). A
    part with fewer than `min_positives` fails in the test window is shown, not judged. `max_loss` is how much of the
    gate's metric a part may lose against the champion, or against the rule if there is no champion. `focus` is a value
    of the slice that is reported separately: month by month beside the whole (`lifecycle.backtest.by_month`), under the
    slice's name.

    With `focus_gain`, the gate has three more conditions for the focus: the model is above the rule by at least this
    share of the rule's metric; the interval of that share begins at or above `focus_gain_low`; and there are at least
    `min_positives` fails.
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
            raise InputError(f"slice {self.name}: focus_gain asks for a gain in the focus, and there is no focus")


@dataclass(frozen=True, slots=True)
class ActionSpec:
    """What acting on a decision means in money and time, so that models can be compared by what they save.

    `cost` is what it costs to act on one decision, in the use case's currency. `effectiveness` is the share of the
    fails that are avoided by acting on them. `until` is the time (UTC) on the outcome date after which no action helps.

    With `taken` the team does act on what is listed. What comes of that then says nothing of the model: training and
    monitoring leave it out, all but the control group (`monitoring.effect.untouched`). So the gate cannot ask what a
    list of the test window saves: what was worth acting on is not in it.

    Raises:
        ValueError: the cost is negative or not finite, or the effectiveness is not a share.
    """

    cost: float = 0.0
    effectiveness: float = 1.0
    until: time = time(16)
    taken: bool = False

    def __post_init__(self) -> None:
        if not (0 <= self.cost < math.inf and 0 <= self.effectiveness <= 1):
            raise InputError(
                f"ActionSpec: cost is {self.cost} and must be finite and not negative; effectiveness is "
                f"{self.effectiveness} and must be from 0 to 1"
            )

    @overload
    def pays(self, expected_cost: float) -> bool: ...
    @overload
    def pays(self, expected_cost: NDArray[np.float64]) -> NDArray[np.bool_]: ...
    def pays(self, expected_cost: float | NDArray[np.float64]) -> bool | NDArray[np.bool_]:
        """Return which decisions of these expected costs (probability times cost of a fail) are worth acting on.

        Acting saves `effectiveness` of the expected cost and costs `cost`. A decision that costs more to act on than
        it saves is below the line, and not among those to act on: a list need not be full.
        """
        return self.effectiveness * expected_cost >= self.cost

    def below_the_line(self, currency: str) -> str:
        """Return in words which decisions are not worth acting on."""
        return f"acting costs {self.cost:g} {currency} and saves {self.effectiveness:.0%} of the expected cost"


# The attribute of a decision that says how it is handled, and its value in the control group.
HANDLING, USUAL_WAY = "handling", "usual way"


@dataclass(frozen=True, slots=True)
class ControlSpec:
    """The control group: decisions on the work-list that go the usual way, so that the effect of acting is known.

    `share` of the entities are in it, by lot, of those whose fail costs at most `max_cost` in the use case's currency.
    With a share of 0 there is none.

    Raises:
        ValueError: the share is not from 0 to 0.5, or there is a share and no cost above 0 that it may have.
    """

    share: float = 0.0
    max_cost: float = 0.0

    def __post_init__(self) -> None:
        if not (0 <= self.share <= 0.5 and 0 <= self.max_cost < math.inf) or (self.share and not self.max_cost):
            raise InputError(
                f"ControlSpec: share is {self.share} and must be from 0 to 0.5; max_cost is {self.max_cost} and must "
                "be finite, and above 0 if there is a share"
            )


# Tables that `features.as_of` creates for the feature SQL, or while it runs.
_OWN_TABLES = {
    *("business_days", "decisions", "decisions_before", "incoming", "label_of_decisions", "labelled"),
    *("calendars_of_places", "market_days", "place_days"),
}

# Acting is free and always helps.
FREE_ACTION = ActionSpec()


@dataclass(frozen=True, slots=True)
class DeskColumn:
    """A column of the desk's list: an attribute of the decisions, and a second one below it (`detail`), with titles.

    `codes` maps values of either to the words that people use. `unit` stands behind the title.
    """

    attribute: str
    title: str
    detail: str = ""
    detail_title: str = ""
    codes: Mapping[str, str] = field(default_factory=dict)
    unit: str = ""


@dataclass(frozen=True, slots=True)
class DeskSpec:
    """How the desk shows a use case's work-list.

    - `columns` are the attributes of the decisions that people read; without any all attributes are shown
    - `filters` are the attributes by which the list can be narrowed
    - `cut_off` is the attribute with the time of day (UTC, HH:MM) on the outcome date until which something can be
      done; without it, or where a decision lacks it, `ActionSpec.until` counts
    - `zone` is the time zone in which the team reads times (IANA)
    - `lease` is how long a claim of a row holds
    - `hidden_share` of the listed rows, by lot, are shown without score and reason until somebody has acted on them:
      so it is measured how far people just follow the score

    Raises:
        ValueError: the lease is not positive, the share is not from 0 to 0.5, or there is no such time zone.
    """

    columns: tuple[DeskColumn, ...] = ()
    filters: tuple[str, ...] = ()
    cut_off: str = ""
    zone: str = "UTC"
    lease: timedelta = timedelta(minutes=30)
    hidden_share: float = 0.0

    def __post_init__(self) -> None:
        if self.lease <= timedelta():
            raise InputError(f"DeskSpec: lease is {self.lease}; it must be above 0")
        if not 0 <= self.hidden_share <= 0.5:
            raise InputError(f"DeskSpec: hidden_share is {self.hidden_share}; it must be from 0 to 0.5")
        try:
            ZoneInfo(self.zone)
        except (ZoneInfoNotFoundError, ValueError):
            raise InputError(f"DeskSpec: there is no time zone {self.zone!r}; it is one like Europe/Paris") from None


@dataclass(frozen=True, slots=True)
class BatchSpec:
    """Limits for the scores of a decision date, against the calibration window. Beyond a limit no score is published.

    The limits detect what is broken (a feed that ended, a column that changed its meaning), not drift: a bad day on the
    market must get its work-list.

    - `min_rows`: a date with fewer decisions is not judged, since chance alone breaks any limit
    - `max_psi` limits the population stability index of the scores; one date differs from a window of weeks by far more
      than two windows differ from each other
    - `max_mean_ratio` is the factor by which the odds of the mean probability may be above or below those of the
      calibration window
    - `max_unknown` limits the share of decisions with a category that the model has not learned, `max_missing` the
      share with a missing value; each is that of the worst feature, beyond the share in the calibration window
    """

    min_rows: int = 100
    max_psi: float = 1.0
    max_mean_ratio: float = 4.0
    max_unknown: float = 0.2
    max_missing: float = 0.2


@dataclass(frozen=True, slots=True)
class CanarySpec:
    """Limits for a canary in the scoring service. Beyond one of them it is taken back by itself.

    - `min_scores`: fewer scores of the canary, or fewer timed ones, are not judged
    - `max_errors` limits the share of scores that it fails to give, for which the champion answers
    - `max_latency_ratio` limits the time in which it scores one decision, over the champion's; of each the p99
    - `max_log_odds` limits the mean absolute difference of its log-odds from the champion's on the same decisions
      (probabilities below 0.001 count as 0.001, those above 0.999 as 0.999)
    - `max_psi` limits the population stability index of its scores against the champion's
    """

    min_scores: int = 100
    max_errors: float = 0.01
    max_latency_ratio: float = 3.0
    max_log_odds: float = 1.0
    max_psi: float = 0.5


@dataclass(frozen=True, slots=True)
class GateSpec:
    """The conditions that a challenger must meet on the unseen window. A condition without a value fails.

    - `min_test_positives` is the least number of positives in the test window
    - `metric` is the metric by which models are compared. Before the test window, a difference in it of up to
      `indifference` means nothing: of the candidates that close to the best, the one listed first is the challenger.
      So list the simplest first
    - `min_lift` is the least PR-AUC minus the base rate; `floors` maps further metrics of `learning.metrics.evaluate`
      to their least values
    - `min_gain` is how much better the metric must be than that of the champion (may be 0) and of the rule
    - `max_regret` is how far the low end of the interval of the gain over the champion may be below 0. A challenger
      need not be proved better, but must not be likely to be worse by more than this. `min_gain_over_rule_low` is the
      least low end of the interval of the gain over the rule, which the challenger does have to beat
    - `confidence` and `resamples` are those of the bootstrap over days
    - `max_calibration_error` limits the expected calibration error; `max_score_psi` limits the population stability
      index of the scores, test against calibration window (above 0.25 is commonly called a major shift)
    - `slices` are the divisions whose parts are judged one by one
    - `min_saved_per_day` is the least that acting on the work-lists must save per decision date, after the cost of
      acting, in the use case's currency: a list must not cost more than it saves. -math.inf sets no limit
    - `max_serving_ms` limits the median time of scoring one decision with the saved model, in milliseconds
    - `batch` has the limits for the scores of a date before they are published
    - `canary` has the limits for a version that answers for a share of the entities
    - `max_feature_auc`: a training set in which one feature alone has a higher AUC is refused, since no honest feature
      is that good
    - `max_settled`: a training set is refused if a larger share of its positives had already happened when decided
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
    min_saved_per_day: float = 0.0
    max_serving_ms: float = 20.0
    batch: BatchSpec = BatchSpec()
    canary: CanarySpec = CanarySpec()
    max_feature_auc: float = 0.95
    max_settled: float = 0.1


@dataclass(frozen=True, slots=True)
class DriftSpec:
    """What counts as drift of a decision date; see `docs/monitoring.md`. A date of fewer than `min_rows` is not judged.

    A date may differ from the model's reference by `margin` times as much as the reference's own days did, by kind of
    day, and at least by:

    - `min_psi`, in the population stability index of a column (0.1 is commonly called a minor shift)
    - `min_share`, in the share of missing values and of categories that are new
    - `min_log_odds`, in the mean log-odds, whole and by cause
    - `min_volume`, a factor, in the number of decisions and of events

    A feature whose distribution has changed but which has moved the mean log-odds by less than `min_moved` is shown,
    and is no drift.

    It is drift on `breaches` of the last `windows` decision dates, the newest among them. What has gone altogether is
    drift at once.

    On the newest complete outcome date there may be `min_ratio_of_all` times the outcomes that the probabilities
    promise, or as few, and what chance explains. `groups` are sources as in `SliceSpec`, of which each value is watched
    likewise: on the newest `group_days` complete outcome dates it may have `min_ratio` times as many, or as few, and
    what `deviations` standard deviations of chance explain.

    Raises:
        ValueError: a number is out of its range, or `breaches` is more than `windows`.
    """

    min_rows: int = 100
    min_psi: float = 0.1
    min_share: float = 0.05
    min_log_odds: float = 0.25
    min_moved: float = 0.1
    min_volume: float = 1.5
    margin: float = 2.0
    breaches: int = 2
    windows: int = 3
    groups: tuple[str, ...] = ()
    group_days: int = 3
    min_ratio: float = 1.5
    min_ratio_of_all: float = 1.25
    deviations: float = 3.5

    def __post_init__(self) -> None:
        if not 1 <= self.breaches <= self.windows:
            raise InputError(f"DriftSpec: breaches is {self.breaches}; it must be from 1 to windows, {self.windows}")
        least = {
            "min_rows": 1,
            "min_psi": 0,
            "min_share": 0,
            "min_log_odds": 0,
            "min_moved": 0,
            "min_volume": 1,
            "margin": 1,
        }
        for name, low in (least | {"group_days": 1, "min_ratio": 1, "min_ratio_of_all": 1, "deviations": 0}).items():
            if getattr(self, name) < low:
                raise InputError(f"DriftSpec: {name} is {getattr(self, name)}; the least is {low}")


@dataclass(frozen=True, slots=True)
class SinceChangeSpec:
    """How a retraining out of turn learns from a change: from the decision dates since then alone.

    The usual training set is of little use then. Its test window, the newest dates, is most of what is new, and what it
    trains on is nearly all older than the change. Here the last `test_days` decision dates are unseen, the
    `calibration_days` before them calibrate, and the others since the change train: at least `train_days`, so the rule
    waits until there are as many. Where outcomes are known some days after the decision, give as many more: nothing is
    learned from what was not known before the test.

    A model of so few dates becomes the champion only if it is better beyond chance: the low end of the interval of its
    gain must be above 0 (compare `GateSpec.max_regret`).

    Raises:
        ValueError: a number is below 1.
    """

    train_days: int = 3
    calibration_days: int = 1
    test_days: int = 3

    def __post_init__(self) -> None:
        for name in ("train_days", "calibration_days", "test_days"):
            if getattr(self, name) < 1:
                raise InputError(f"SinceChangeSpec: {name} is {getattr(self, name)}; the least is 1")

    @property
    def dates(self) -> int:
        """How many decision dates there must be since a change."""
        return self.train_days + self.calibration_days + self.test_days


@dataclass(frozen=True, slots=True)
class MonitoringSpec:
    """How a model is watched once it scores, and when it is retrained early; see `docs/monitoring.md`.

    Performance, over the newest complete outcome dates:

    - `window_days` is how many decision dates a window of matured performance has
    - a group with fewer than `min_positives` fails is shown, not judged
    - `max_estimate_error` is how far the estimated PR-AUC may be from the realised one, as a share of the realised one;
      beyond that, and beyond chance, the estimate is withdrawn

    A model is retrained early after `breaches` of the last `windows` complete outcome dates, the newest among them:

    - `min_new_labels` outcomes must be new since the last training, and `min_gap` must have passed since then
    - there are at most `max_per_week` early retrainings in seven days; after `max_in_vain` in a row without gain, a
      person is asked
    - nothing is judged across a gap of more than `longest_gap` between two complete outcome dates
    - `since_change` says how it learns from the dates since the change alone; None means as on other days, from the
      usual training set

    `drift` says what counts as drift of a decision date.

    Raises:
        ValueError: a number is out of its range, or `breaches` is more than `windows`.
    """

    window_days: int = 20
    min_positives: int = 50
    max_estimate_error: float = 0.25
    breaches: int = 3
    windows: int = 5
    min_new_labels: int = 1000
    min_gap: timedelta = timedelta(days=3)
    max_per_week: int = 2
    max_in_vain: int = 2
    longest_gap: timedelta = timedelta(days=10)
    since_change: SinceChangeSpec | None = None
    drift: DriftSpec = DriftSpec()

    def __post_init__(self) -> None:
        if not 1 <= self.breaches <= self.windows:
            raise InputError(
                f"MonitoringSpec: breaches is {self.breaches}; it must be from 1 to windows, {self.windows}"
            )
        least = {"window_days": 2, "min_positives": 1, "max_per_week": 0, "max_in_vain": 1}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise InputError(f"MonitoringSpec: {name} is {getattr(self, name)}; the least is {low}")


@dataclass(frozen=True)
class UseCase:
    """One model of Markets Operations, from its events to its work-list.

    - `name` is the name in paths and commands, `entity` the id of what is decided on, `owner` the team
    - `tier` is the model-risk tier; in `high` a person approves each promotion
    - `folder` holds `features/decisions.sql` (what is decided: entity_id, outcome_date, cost_if_fail, attributes),
      any number of further `features/*.sql` (entity_id and features), `label.sql` (entity_id, label), and one
      `daily/<name>.sql` for each table in `daily`
    - `calendar` has the business days, and `first_partition` is the first date
    - `places` is for decisions at places with other business days than those of `calendar`
    - `capacity` is how many decisions the team can act on per slot and date; `action` is what acting costs and saves,
      `control` is who is left alone so that this can be measured; `desk` is how people see the list
    - `value` is where the value at stake is found: a column of the features table, or `attributes.<key>`; empty if it
      is not known
    - `needs` are attributes that decisions should have; decisions that lack them are reported
    - `publication_pause` is the longest pause between two publications of its events, beyond a business day; longer
      pauses are reported as stale data
    - `causes` are the groups of the reasons. `cause_for(code, attributes)` replaces the code for one decision: one
      side's lack of securities is, for the other side, a counterparty that is short
    - `limits` say what the model must not be used for and where it is weak; without them no model is registered
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
    monitoring: MonitoringSpec = MonitoringSpec()
    action: ActionSpec = FREE_ACTION
    control: ControlSpec = ControlSpec()
    desk: DeskSpec = DeskSpec()
    value: str = ""
    needs: tuple[Need, ...] = ()
    places: PlaceSpec | None = None
    currency: str = "EUR"
    publication_pause: timedelta = timedelta()
    seed: int = 20260105
    causes: tuple[Cause, ...] = ()
    cause_for: Callable[[str, Mapping[str, Any]], str] | None = None
    limits: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for what, names in (
            (
                "event",
                [name for event in self.events for name in event.tables]
                + [r.name for r in self.references]
                + [t.name for t in self.daily],
            ),
            ("feature", [f.name for f in self.features]),
            ("candidate", [c.name for c in self.candidates]),
            ("slot", [s.name for s in self.slots]),
            ("slice", [s.name for s in self.gate.slices]),
            ("cause", [c.code for c in self.causes]),
        ):
            twice = sorted({n for n in names if names.count(n) > 1})
            if twice:
                raise InputError(f"use case {self.name}: {what} names are not unique: {', '.join(twice)}")
        named = [*(e.name for e in self.events), *(r.name for r in self.references), *(t.name for t in self.daily)]
        if taken := [name for name in named if name.lower() in _OWN_TABLES]:
            raise InputError(
                f"use case {self.name}: no event, reference or daily table can be called {taken[0]}: the feature SQL "
                "has a table of that name already; give it another one"
            )
        if unknown := sorted({f.cause for f in self.features} - {c.code for c in self.causes} - {""}):
            raise InputError(f"use case {self.name}: features name causes that are not declared: {', '.join(unknown)}")
        events = {event.name for event in self.events}
        for what, waits_for in [("label", self.label.waits_for), *((t.name, t.waits_for) for t in self.daily)]:
            if stray := sorted(set(waits_for or ()) - events):
                raise InputError(
                    f"use case {self.name}: {what} waits for {', '.join(stray)}, which is none of its events; it has "
                    f"{', '.join(sorted(events))}"
                )
        if self.label.waits_for == ():
            raise InputError(f"use case {self.name}: the label waits for nothing; name an event in waits_for")
        if self.places and not any(self.places.column in e.contract.__struct_fields__ for e in self.events):
            raise InputError(f"use case {self.name}: places.column {self.places.column!r} is no field of any event")
        if self.action.taken and self.gate.min_saved_per_day > -math.inf:
            raise InputError(
                f"use case {self.name}: the team acts on its lists (action.taken), so the test window is what was not "
                "worth acting on, and no list of it saves anything; set gate.min_saved_per_day to -math.inf"
            )
        if sum(c.is_rule for c in self.candidates) != 1:
            raise InputError(f"use case {self.name}: exactly one candidate is the business rule (is_rule=True)")

    def event(self, name: str) -> EventSpec:
        """Return the event of that name.

        Raises:
            KeyError: the use case has no such event.
        """
        for event in self.events:
            if event.name == name:
                return event
        raise NotFoundError(f"use case {self.name} has no event {name!r}; it has {[e.name for e in self.events]}")

    def look_back(self, event: EventSpec) -> timedelta:
        """Return how far back features read an event: its own history, plus the longest history of a daily table."""
        return event.history + max((table.history for table in self.daily), default=timedelta())

    @cached_property
    def calendars(self) -> tuple[BusinessCalendar, ...]:
        """All calendars, the use case's own first."""
        return tuple(dict.fromkeys((self.calendar, *(self.places.calendars.values() if self.places else ()))))

    def calendar_of(self, place: str | None) -> BusinessCalendar:
        """Return the calendar of a place: the use case's own if the place has none."""
        return self.places.calendars.get(place or "", self.calendar) if self.places else self.calendar

    def outcome_known_at(self, outcome_date: date, calendar: BusinessCalendar) -> datetime:
        """Return when the outcome of a date is known at the places of a calendar."""
        if self.places is None or self.places.known_at is None:
            return self.label.known_at(outcome_date)
        return self.places.known_at(outcome_date, calendar)

    def decision_dates(self, first: date, last: date) -> Iterator[date]:
        """Yield the dates from `first` to `last`, both included, that are a business day of any place."""
        day = first
        while day <= last:
            if any(calendar.is_business_day(day) for calendar in self.calendars):
                yield day
            day += timedelta(days=1)

    def next_decision_date(self, day: date) -> date:
        """Return the first decision date after a day."""
        return min(calendar.next(day) for calendar in self.calendars)

    def decision_times(self, decision_date: date) -> tuple[DecisionTime, ...]:
        """Return the decision times of a date: none on a day that is not a business day of any place."""
        if not any(calendar.is_business_day(decision_date) for calendar in self.calendars):
            return ()
        return tuple(
            DecisionTime(slot.name, datetime.combine(decision_date, slot.at, tzinfo=UTC)) for slot in self.slots
        )

    def decides_all(self, decision: DecisionTime) -> OutcomeDates | None:
        """Return the outcome dates of which everything open is decided at a decision time, or None.

        None means that the slot decides only a part or that the use case no longer has the slot. It also means that a
        market which is open on the outcome date is closed on the decision date, or reaches another outcome date by
        `days_before`: its entities are then decided at another time.
        """
        slot = next((slot for slot in self.slots if slot.name == decision.slot), None)
        if slot is None or slot.days_before is None:
            return None
        day = decision.decision_date
        if slot.onwards:
            if not all(calendar.is_business_day(day) for calendar in self.calendars):
                return None
            if slot.days_before == 0:
                return OutcomeDates(day)
            # Outcomes may be on any day, so the first is the day after the business day before.
            before = max(calendar.add(day, slot.days_before - 1) for calendar in self.calendars)
            return OutcomeDates(before + timedelta(days=1))
        reached = {calendar: calendar.add(day, slot.days_before) for calendar in self.calendars}
        for outcome in sorted(set(reached.values())):
            there = [calendar for calendar in self.calendars if calendar.is_business_day(outcome)]
            if there and all(calendar.is_business_day(day) and reached[calendar] == outcome for calendar in there):
                return OutcomeDates(outcome, outcome)
        return None

    def slots_at(self, moment: datetime) -> tuple[DecisionTime, ...]:
        """Return the slots by which a decision can be made at a moment, in the order in which they apply.

        They belong to the day of the moment, or to the last business day of any place before it. If several slots list
        an entity, the first one decides it: the slot whose time has passed most recently, or, before all times, the
        slot that comes next.
        """
        day = moment.astimezone(UTC).date()
        if not any(calendar.is_business_day(day) for calendar in self.calendars):
            day = max(calendar.previous(day) for calendar in self.calendars)
        times = [(datetime.combine(day, slot.at, tzinfo=UTC), slot.name) for slot in self.slots]
        past = sorted((one for one in times if one[0] <= moment), key=lambda one: one[0], reverse=True)
        ahead = sorted((one for one in times if one[0] > moment), key=lambda one: one[0])
        return tuple(DecisionTime(name, moment, day) for _, name in (*past, *ahead))

    def learning_since(self, change: date, until: date) -> UseCase:
        """Return the use case as it learns from the decision dates from a change to `until` alone, without a search.

        Raises:
            InputError: it does not say how (`MonitoringSpec.since_change`).
        """
        spec = self.monitoring.since_change
        if spec is None:
            raise InputError(
                f"use case {self.name} does not say how it learns from the dates since a change",
                to_do="give MonitoringSpec(since_change=SinceChangeSpec()) in usecase.py, or retrain as on other days",
            )
        dates = sum(1 for _ in self.decision_dates(change, until))
        train_days = max(spec.train_days, dates - spec.calibration_days - spec.test_days)
        split = replace(
            self.split,
            train_days=min(self.split.train_days, train_days),
            calibration_days=spec.calibration_days,
            test_days=spec.test_days,
            folds=0,
            refit=True,
        )
        return replace(self, split=split, candidates=tuple(replace(one, search=None) for one in self.candidates))

    @property
    def needs_approval(self) -> bool:
        """Whether a person has to approve each promotion, as in the tier `high`."""
        return self.tier == "high"

    @property
    def rule(self) -> Candidate:
        """The business rule among the candidates."""
        return next(c for c in self.candidates if c.is_rule)

    @cached_property
    def feature_sql(self) -> dict[str, str]:
        """The SQL of each feature file by its stem; `decisions` defines the rows.

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
    def report_sql(self) -> dict[str, str]:
        """The SQL of each report of its own by its name, which is that of a file in `reports/`."""
        files = sorted((self.folder / "reports").glob("*.sql"))
        return {file.stem: file.read_text(encoding="utf-8") for file in files}

    @cached_property
    def alert_sql(self) -> dict[str, str]:
        """The SQL of each alert rule of its own by its name, which is that of a file in `alerts/`."""
        files = sorted((self.folder / "alerts").glob("*.sql"))
        return {file.stem: file.read_text(encoding="utf-8") for file in files}

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
        if self.places:
            calendars = {place: one.market for place, one in sorted(self.places.calendars.items())}
            digest.update(f"{self.calendar.market}:{self.places.column}:{calendars}\0".encode())
        return digest.hexdigest()[:12]
