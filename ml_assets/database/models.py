"""The application's tables. Alembic revisions make them, and a test holds the two together.

A table's columns are declared once, here: the Arrow schema of predictions and the SQL of the upsert derive from
them. A column marked `PROVENANCE` tells how the values of a row came about. It stays as first written while the
values are equal, so that scoring again changes no row.
"""

from __future__ import annotations

import re
from datetime import date, datetime
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Date,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, DATERANGE, JSONB, REAL
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

PROVENANCE: Final = {"provenance": True}
_PARTITION: Final = re.compile(r"predictions_\d{4}_\d{2}|past_cases_.+")


def is_declared(name: str | None, kind: str, _parents: object = None) -> bool:
    """Return whether something in the database has to be in the models: the partition of a table has not."""
    return not (kind == "table" and _PARTITION.fullmatch(name or ""))


class Base(DeclarativeBase):
    """All tables of the application's database."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - read by SQLAlchemy once, when the class is made
        str: Text,
        int: Integer,
        float: Double,
        date: Date,
        datetime: DateTime(timezone=True),
    }


class Prediction(Base):
    """One entity scored at one decision time by one model.

    A model is its MLflow run: its version is a number for people, which MLflow gives again once a registered model has
    been deleted. Probabilities lie in [0, 1]; costs are in the currency of the use case. `rank` counts from 1 by
    falling `expected_cost` among the predictions of the same use case, decision time and model.
    """

    __tablename__ = "predictions"

    use_case: Mapped[str] = mapped_column(primary_key=True)
    decision_time: Mapped[datetime] = mapped_column(primary_key=True)
    mlflow_run_id: Mapped[str] = mapped_column(primary_key=True)
    entity_id: Mapped[str] = mapped_column(primary_key=True)
    decision_date: Mapped[date]
    slot: Mapped[str]
    outcome_date: Mapped[date]
    probability: Mapped[float]
    cost_if_fail: Mapped[float]
    expected_cost: Mapped[float]
    rank: Mapped[int]
    reason_codes: Mapped[Any | None] = mapped_column(JSONB)
    attributes: Mapped[Any | None] = mapped_column(JSONB)
    model_name: Mapped[str]
    model_version: Mapped[int]
    feature_set_hash: Mapped[str]
    data_versions: Mapped[Any] = mapped_column(JSONB, info=PROVENANCE)
    git_commit: Mapped[str] = mapped_column(info=PROVENANCE)
    dagster_run_id: Mapped[str] = mapped_column(info=PROVENANCE)
    scored_at: Mapped[datetime] = mapped_column(info=PROVENANCE)

    __table_args__ = (
        # The work-list: the latest decision of each entity with an outcome date. The primary key has the entity last,
        # so that a scored partition lies together, is written together and is found without another index.
        Index(None, "use_case", "outcome_date", "entity_id", "decision_time"),
        # A table a month, made when it is first written to: `predictions.retire_predictions` drops those that are old.
        {"postgresql_partition_by": "RANGE (decision_time)"},
    )


class Scoring(Base):
    """A decision time at which a use case was scored, and the model that counts for it: the one that scored last.

    The time of scoring cannot tell. After a rollback the old champion scores again, finds its rows unchanged and
    leaves their `scored_at` as it was, older than the rows of the version that was rolled back.

    `decides` are the outcome dates of which everything open was decided (null: of none), though it be nothing at all.
    Earlier decisions about them are off the work-list.

    `decisions` and `mean_probability` add up its predictions, so that who looks at years need not read them all; slot
    and date are null if nothing was open.
    """

    __tablename__ = "scorings"

    use_case: Mapped[str] = mapped_column(primary_key=True)
    decision_time: Mapped[datetime] = mapped_column(primary_key=True)
    model_version: Mapped[int]
    mlflow_run_id: Mapped[str]
    decides: Mapped[Any | None] = mapped_column(DATERANGE)
    slot: Mapped[str | None]
    decision_date: Mapped[date | None]
    decisions: Mapped[int | None]
    mean_probability: Mapped[float | None]


class Promotion(Base):
    """One line of the promotion ledger. The database adds rows and refuses to change or delete them.

    `action` is `registered` (a model with its evidence entered the ledger), `requested` (a version awaits approval),
    `declined`, `promoted`, `rolled_back`, `restored` (a person confirmed the champion), `canary` (a version answers for
    a `share` of the entities beside the champion) or `canary_ended`. The next line that makes a champion ends a canary
    too. A request with a `share` asks for a canary. `actor` is a person, the Dagster run that acted by itself, or the
    guard that took a canary back. A model is its MLflow run, the SHA-256 of its files (`model_hash`) and that of the
    evidence that the decision rests on (`evidence_hash`); its version is only a number for people, which MLflow may
    give again. Lines from before revision 0004 have no run and no model hash. `request_id` is the request that an
    approval answers. The database itself sets `from_version`, `from_run_id` (the champion before), `needs_approval`
    (the tier says so), `recorded_at` and `database_user`.
    """

    __tablename__ = "promotions"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    use_case: Mapped[str]
    action: Mapped[str]
    from_version: Mapped[int | None]
    to_version: Mapped[int]
    actor: Mapped[str]
    is_person: Mapped[bool]
    needs_approval: Mapped[bool]
    request_id: Mapped[int | None] = mapped_column(BigInteger, ForeignKey("promotions.id"), unique=True)
    evidence_hash: Mapped[str | None]
    reason: Mapped[str]
    recorded_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    database_user: Mapped[str] = mapped_column(server_default=text("session_user"))
    mlflow_run_id: Mapped[str | None]
    model_hash: Mapped[str | None]
    from_run_id: Mapped[str | None]
    share: Mapped[float | None]

    __table_args__ = (
        CheckConstraint(
            "action IN ('registered', 'requested', 'declined', 'promoted', 'rolled_back', 'restored', 'canary', "
            "'canary_ended')",
            name="action",
        ),
        CheckConstraint(
            "action NOT IN ('promoted', 'canary') OR NOT needs_approval OR (request_id IS NOT NULL AND is_person)",
            name="approved",
        ),
        CheckConstraint("actor <> '' AND reason <> ''", name="said"),
        CheckConstraint(
            "action NOT IN ('requested', 'promoted', 'canary') OR evidence_hash IS NOT NULL", name="evidence"
        ),
        CheckConstraint(
            "(action <> 'canary' OR share IS NOT NULL) AND "
            "(share IS NULL OR (action IN ('requested', 'canary') AND share > 0 AND share < 1))",
            name="share",
        ),
        Index(None, "use_case", "id"),
    )


class UseCaseTier(Base):
    """The tier of a use case, by which the database itself knows whose promotions need approval.

    Written by the role that migrates, never by those who promote.
    """

    __tablename__ = "use_case_tiers"

    use_case: Mapped[str] = mapped_column(primary_key=True)
    tier: Mapped[str]

    __table_args__ = (CheckConstraint("tier IN ('low', 'medium', 'high')", name="tier"),)


class PromotionHold(Base):
    """One row for each use case, which is locked while somebody decides on its champion."""

    __tablename__ = "promotion_holds"

    use_case: Mapped[str] = mapped_column(primary_key=True)
    times: Mapped[int] = mapped_column(BigInteger)


class Outcome(Base):
    """One prediction with its outcome: a copy of the lake's outcomes table, for SQL.

    `is_last` marks the newest prediction of an entity about an outcome date, `on_list` the predictions that the team
    was to act on, `control` those that went the usual way. Only outcome dates that are complete are judged.
    """

    __tablename__ = "outcomes"

    use_case: Mapped[str] = mapped_column(primary_key=True)
    outcome_date: Mapped[date] = mapped_column(primary_key=True)
    stage: Mapped[str] = mapped_column(primary_key=True)
    entity_id: Mapped[str] = mapped_column(primary_key=True)
    decision_time: Mapped[datetime] = mapped_column(primary_key=True)
    decision_date: Mapped[date]
    slot: Mapped[str]
    model_version: Mapped[int]
    probability: Mapped[float]
    cost_if_fail: Mapped[float]
    expected_cost: Mapped[float]
    on_list: Mapped[bool]
    is_last: Mapped[bool]
    label: Mapped[int | None]
    label_known_at: Mapped[datetime | None]
    is_complete: Mapped[bool]
    control: Mapped[bool | None]


class OutcomeCount(Base):
    """What came of an outcome date, added up: of all, and of each value of each slice of the use case.

    Counted is the newest prediction of each entity (`Outcome.is_last`). `dimension` is `all` or a slice, `value` one of
    its values. `labelled` of the `decisions` have an outcome, `fails` of these are fails, which cost `cost`; `promised`
    is the sum of their probabilities. `known_at` is when the last label of the date was known.
    """

    __tablename__ = "outcome_counts"

    use_case: Mapped[str] = mapped_column(primary_key=True)
    outcome_date: Mapped[date] = mapped_column(primary_key=True)
    stage: Mapped[str] = mapped_column(primary_key=True)
    dimension: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str] = mapped_column(primary_key=True)
    decisions: Mapped[int]
    labelled: Mapped[int]
    fails: Mapped[int]
    promised: Mapped[float]
    cost: Mapped[float]
    is_complete: Mapped[bool]
    known_at: Mapped[datetime | None]


class PastCase(Base):
    """A decision whose outcome is known, with its place among others: see `learning.case_space`.

    `mlflow_run_id` is the model that scored it and gave its contributions, `space` the one by whose training set its
    features are standardised: only vectors of one space can be compared. `vector` has `case_space.DIMENSIONS` numbers;
    it is an array, since the extension pgvector is not everywhere, and each partition has an index where it is.
    """

    __tablename__ = "past_cases"

    use_case: Mapped[str] = mapped_column(primary_key=True)
    outcome_date: Mapped[date] = mapped_column(primary_key=True)
    entity_id: Mapped[str] = mapped_column(primary_key=True)
    decision_time: Mapped[datetime] = mapped_column(primary_key=True)
    slot: Mapped[str]
    mlflow_run_id: Mapped[str]
    model_version: Mapped[int]
    probability: Mapped[float]
    expected_cost: Mapped[float]
    on_list: Mapped[bool]
    control: Mapped[bool | None]
    label: Mapped[int] = mapped_column(SmallInteger)
    label_known_at: Mapped[datetime]
    space: Mapped[str]
    vector: Mapped[Any] = mapped_column(ARRAY(REAL))

    __table_args__ = (
        # Filtered by use case, one index would give too few neighbours of a small one: a partition for each.
        {"postgresql_partition_by": "LIST (use_case)"},
    )


class Performance(Base):
    """A metric of the predictions of one group on a window of complete outcome dates, with its interval over days.

    `outcome_date` is the last date of the window, `days` its decision dates. `dimension` is `all`, `day`, `slot`,
    `model_version`, `stage`, `handling` (what was done about them) or a slice of the use case; `value` is one of its
    values. `acting` has what acting avoided. A group with too few fails is not `judged`.
    """

    __tablename__ = "performance"

    use_case: Mapped[str] = mapped_column(primary_key=True)
    outcome_date: Mapped[date] = mapped_column(primary_key=True)
    dimension: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str] = mapped_column(primary_key=True)
    metric: Mapped[str] = mapped_column(primary_key=True)
    measured: Mapped[float | None]
    low: Mapped[float | None]
    high: Mapped[float | None]
    n: Mapped[int]
    positives: Mapped[int]
    days: Mapped[int]
    judged: Mapped[bool]


class Estimate(Base):
    """A metric as it was expected from the probabilities alone, and as it came out once the outcome date was complete.

    `low` and `high` are what chance leaves open if the probabilities are right. An estimate that is not `published`
    has been withdrawn, for `why`.
    """

    __tablename__ = "estimates"

    use_case: Mapped[str] = mapped_column(primary_key=True)
    outcome_date: Mapped[date] = mapped_column(primary_key=True)
    metric: Mapped[str] = mapped_column(primary_key=True)
    estimated: Mapped[float | None]
    low: Mapped[float | None]
    high: Mapped[float | None]
    realised: Mapped[float | None]
    n: Mapped[int]
    published: Mapped[bool]
    why: Mapped[str]


class Drift(Base):
    """One measure of the decisions of a date, with the range that it may have: see `monitoring.drift`.

    `kind` is `feature`, `prediction`, `slice`, `cause`, `volume`, `feed` or `group`, `name` one of them. `moved` is by
    how much it has moved the mean log-odds. What `breached` on enough of the last dates has `drifted`.
    """

    __tablename__ = "drift"

    use_case: Mapped[str] = mapped_column(primary_key=True)
    decision_date: Mapped[date] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    measure: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[float | None]
    expected: Mapped[float | None]
    low: Mapped[float | None]
    high: Mapped[float | None]
    moved: Mapped[float | None]
    n: Mapped[int]
    judged: Mapped[bool]
    breached: Mapped[bool]
    drifted: Mapped[bool]
    why: Mapped[str]


class ShadowVerdictRow(Base):
    """What the same matured decisions said of the model in the shadow beside the champion, as of a date.

    `says` is `better`, `worse`, `no difference` or `too early`; `gain` is that of the shadow in `metric`, with its
    interval over days.
    """

    __tablename__ = "shadow_verdicts"

    use_case: Mapped[str] = mapped_column(primary_key=True)
    decision_date: Mapped[date] = mapped_column(primary_key=True)
    champion_version: Mapped[int]
    champion_run_id: Mapped[str]
    shadow_version: Mapped[int]
    shadow_run_id: Mapped[str]
    metric: Mapped[str]
    of_champion: Mapped[float | None]
    of_shadow: Mapped[float | None]
    gain: Mapped[float | None]
    low: Mapped[float | None]
    high: Mapped[float | None]
    saved_per_day: Mapped[float | None]
    n: Mapped[int]
    positives: Mapped[int]
    days: Mapped[int]
    says: Mapped[str]
    sentence: Mapped[str]


class RetrainingDecision(Base):
    """Whether a model was to be retrained early, decided once per date, with the numbers for the decision.

    `outcome` is `retrain`, `wait` or `ask a person`.
    """

    __tablename__ = "retraining_decisions"

    use_case: Mapped[str] = mapped_column(primary_key=True)
    decision_date: Mapped[date] = mapped_column(primary_key=True)
    outcome: Mapped[str]
    reason: Mapped[str]
    numbers: Mapped[Any] = mapped_column(JSONB)
    decided_at: Mapped[datetime]
    dagster_run_id: Mapped[str]

    __table_args__ = (CheckConstraint("outcome IN ('retrain', 'wait', 'ask a person')", name="outcome"),)


class AlertEvent(Base):
    """One line of the ledger of alerts. The database adds rows and refuses to change or delete them.

    `what` is `opened`, `repeated` or `closed` (an alert, by an evaluation), `acknowledged` or `silenced` (by a person;
    a silence with no key is of all alerts of the rule), or `sent`, `failed` or `given up` (a message to a sink, of the
    event `about`). Of an alert, `about` is the event that opened it. `at` is the time that the line counts for. The
    database itself sets `recorded_at` and `database_user`, and sees to it that each opened alert closes once.

    A report that people are sent is `reported`: `rule` is its name, `key` its date, `files` the folder that it lies in.
    """

    __tablename__ = "alert_events"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    event_id: Mapped[str | None] = mapped_column(unique=True)
    what: Mapped[str]
    about: Mapped[str | None]
    use_case: Mapped[str]
    rule: Mapped[str]
    rule_hash: Mapped[str]
    kind: Mapped[str]
    key: Mapped[str]
    severity: Mapped[str]
    message: Mapped[str]
    at: Mapped[datetime]
    until: Mapped[datetime | None]
    sink: Mapped[str | None]
    message_id: Mapped[str | None]
    actor: Mapped[str | None]
    reason: Mapped[str | None]
    recorded_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    database_user: Mapped[str] = mapped_column(server_default=text("session_user"))
    files: Mapped[str | None]

    __table_args__ = (
        CheckConstraint(
            "what IN ('opened', 'repeated', 'acknowledged', 'silenced', 'closed', 'sent', 'failed', 'given up', "
            "'reported')",
            name="what",
        ),
        CheckConstraint("kind IN ('firing', 'error', 'no data', 'not run', 'report')", name="kind"),
        CheckConstraint("what NOT IN ('acknowledged', 'silenced') OR (actor <> '' AND reason <> '')", name="said"),
        CheckConstraint("what <> 'silenced' OR until IS NOT NULL", name="until"),
        CheckConstraint(
            "what NOT IN ('opened', 'repeated', 'closed', 'reported') OR event_id IS NOT NULL", name="told"
        ),
        CheckConstraint("what <> 'reported' OR files IS NOT NULL", name="files"),
        CheckConstraint(
            "what NOT IN ('sent', 'failed', 'given up') OR (about IS NOT NULL AND sink IS NOT NULL)", name="sending"
        ),
        Index(None, "use_case", "rule", "id"),
        Index("uq_alert_events_closed", "about", unique=True, postgresql_where=text("what = 'closed'")),
        Index(None, "about"),
        Index(None, "sink", "at", postgresql_where=text("what = 'sent'")),
    )


class AlertOutbox(Base):
    """One event on its way to one sink, put here in the transaction that wrote the event.

    `message_id` names the message that carries it, once that is composed: a receiver tells a repeat by it. `form` is
    what that message is. Nothing is sent before `not_before`.
    """

    __tablename__ = "alert_outbox"

    event_id: Mapped[str] = mapped_column(ForeignKey("alert_events.event_id"), primary_key=True)
    sink: Mapped[str] = mapped_column(primary_key=True)
    state: Mapped[str]
    not_before: Mapped[datetime]
    message_id: Mapped[str | None]
    form: Mapped[str]
    attempts: Mapped[int]
    why: Mapped[str]
    put_at: Mapped[datetime] = mapped_column(server_default=text("now()"))

    __table_args__ = (
        CheckConstraint("state IN ('waiting', 'sent', 'given up')", name="state"),
        CheckConstraint("form IN ('alert', 'digest', 'summary', 'report')", name="form"),
        Index(None, "sink", "not_before", postgresql_where=text("state = 'waiting'")),
    )


class AlertEvaluation(Base):
    """The last evaluation of a rule: its state, when another is due at the latest, and the alerts that it left.

    `number` counts the evaluations. Who writes the next one says which it has read: of two evaluators one is refused.
    """

    __tablename__ = "alert_evaluations"

    use_case: Mapped[str] = mapped_column(primary_key=True)
    rule: Mapped[str] = mapped_column(primary_key=True)
    rule_hash: Mapped[str]
    number: Mapped[int] = mapped_column(BigInteger)
    state: Mapped[str]
    why: Mapped[str]
    found: Mapped[int]
    seconds: Mapped[float]
    evaluated_at: Mapped[datetime]
    deadline_at: Mapped[datetime]
    alerts: Mapped[Any] = mapped_column(JSONB)

    __table_args__ = (CheckConstraint("state IN ('ok', 'pending', 'firing', 'error', 'no data')", name="state"),)


class Feedback(Base):
    """One thing that a person said about a row of a work-list. The database adds rows and refuses to change them.

    `what` and `value` are those of `predictions.feedback`; `undoes` is the line that this one takes back, `until` the
    end of a claim's lease. `at` is the time that the line counts for, `request_key` the form that it came with. What
    was shown stands beside it: decision and model, place on the list, and probability and expected cost (null where
    they were hidden, to measure how far people just follow them). The database itself sets `recorded_at` and
    `database_user`.
    """

    __tablename__ = "feedback"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    use_case: Mapped[str]
    outcome_date: Mapped[date]
    entity_id: Mapped[str]
    what: Mapped[str]
    value: Mapped[str | None]
    note: Mapped[str]
    undoes: Mapped[int | None] = mapped_column(BigInteger, ForeignKey("feedback.id"), unique=True)
    actor: Mapped[str]
    at: Mapped[datetime]
    until: Mapped[datetime | None]
    request_key: Mapped[str]
    decision_time: Mapped[datetime]
    shown_priority: Mapped[int]
    shown_probability: Mapped[float | None]
    shown_expected_cost: Mapped[float | None]
    shown_cause: Mapped[str | None]
    model_version: Mapped[int]
    mlflow_run_id: Mapped[str]
    cut_off_at: Mapped[datetime]
    recorded_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    database_user: Mapped[str] = mapped_column(server_default=text("session_user"))

    __table_args__ = (
        CheckConstraint(
            "what IN ('claimed', 'released', 'acted', 'resulted', 'judged', 'noted', 'undone')", name="what"
        ),
        CheckConstraint("actor <> '' AND request_key <> ''", name="said"),
        CheckConstraint("(what = 'undone') = (undoes IS NOT NULL)", name="undone"),
        CheckConstraint("(what = 'claimed') = (until IS NOT NULL)", name="until"),
        CheckConstraint("what NOT IN ('acted', 'resulted', 'judged') OR value IS NOT NULL", name="value"),
        UniqueConstraint("use_case", "outcome_date", "entity_id", "request_key"),
        Index(None, "use_case", "outcome_date", "id"),
    )


class LostAnswers(Base):
    """So many answers of the scoring service that did not get into the topic, and why: a row for each time it noticed.

    `service` is the machine or pod. The service adds rows by a function of the database, which is all that it may.
    """

    __tablename__ = "lost_answers"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    recorded_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    service: Mapped[str]
    topic: Mapped[str]
    why: Mapped[str]
    number: Mapped[int] = mapped_column(BigInteger)

    __table_args__ = (CheckConstraint("number > 0", name="number"), Index(None, "recorded_at"))
