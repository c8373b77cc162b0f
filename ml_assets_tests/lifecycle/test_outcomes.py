"""When an outcome is one: labels and decisions wait for the topics that they depend on, however long the horizon."""

import dataclasses
from datetime import UTC, date, datetime, time, timedelta

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from ml_assets.defs.sensors.landed import Reach, _progress
from ml_assets.lake import Lake, features_table, labels_table, landing_table
from ml_assets.landing.batch import landing_rows
from ml_assets.landing.decode import Decoder
from ml_assets.landing.heartbeat import Heartbeats
from ml_assets.landing.schemas import PARTITIONED_BY
from ml_assets.lifecycle.features import DecisionReport, compute_features, mature_labels
from ml_assets.lifecycle.ingestion import curate_dates
from ml_assets.lifecycle.waiting import what_waits
from ml_assets.spec import LabelSpec, UseCase
from ml_assets_tests import late_payments

DAYS = list(late_payments.CALENDAR.between(late_payments.FIRST, date(2026, 1, 16)))
LAST = DAYS[-1]


class Taken(msgspec.Struct):
    """A message as a consumer gives it."""

    at: int
    of: int
    text: bytes
    milliseconds: int

    def partition(self):
        return self.of

    def offset(self):
        return self.at

    def timestamp(self):
        return (1, self.milliseconds)

    def key(self):
        return b""

    def value(self):
        return self.text

    def headers(self):
        return []


@pytest.fixture(scope="module")
def usecase(tmp_path_factory) -> UseCase:
    return late_payments.usecase_of(late_payments.make_package(tmp_path_factory.mktemp("outcomes"), "outcomes"))


def put(lake: Lake, usecase: UseCase, messages, *, clock="replay", now=None) -> None:
    """Land messages of two partitions as a lander does, without a broker."""
    for event in usecase.events:
        mine = [m for m in messages if m.topic == event.topic]
        if not mine:
            continue
        appender = lake.appender(landing_table(event.topic), PARTITIONED_BY)
        start = appender.positions(["put"])
        taken = [Taken(start["put"] + n, n % 2, m.value, m.timestamp_ms) for n, m in enumerate(mine)]
        rows = landing_rows(event, Decoder(event.contract), "e", taken, clock=clock, now=now)
        appender.append(rows.rows, start, {"put": start["put"] + len(taken)})


def ingest(lake: Lake, usecase: UseCase, days=DAYS) -> DecisionReport:
    for event in usecase.events:
        curate_dates(lake, usecase, event, days)
    compute_features(lake, usecase, days, threads=1)
    return mature_labels(lake, usecase, days, threads=1)


def published(usecase: UseCase, *, until: datetime | None = None, of: str = "payments"):
    """The messages of all days; those of one topic only until a time, as when its feed is late."""
    found = late_payments.messages(len(DAYS), per_day=20, name=usecase.name)
    late = usecase.event(of).topic
    return [m for m in found if until is None or m.topic != late or m.timestamp_ms <= until.timestamp() * 1000]


def labels_of(lake: Lake, usecase: UseCase) -> pa.Table:
    return lake.read(labels_table(usecase))


def test_a_late_feed_makes_outcomes_wait_and_no_fails(lake, usecase):
    """Guards against the largest known_at over all topics: without payments every invoice would be unpaid."""
    stop = datetime.combine(DAYS[5], time(6), tzinfo=UTC)
    put(lake, usecase, published(usecase, until=stop))
    report = ingest(lake, usecase)
    labels = labels_of(lake, usecase)
    assert max(labels["outcome_date"].to_pylist()) < DAYS[5]
    assert report.immature[0] == DAYS[4], "known at 06:00 of the day on which the feed stopped, and not reached"
    assert report.slowest.startswith(f"topic {usecase.name}_payments, partition ")
    assert report.waiting == 20 * len(report.immature)
    assert (report.decisions, report.labelled) == (report.labelled + report.waiting, labels.num_rows)
    rate = pc.mean(labels["label"]).as_py()
    assert rate < 0.7

    (said,) = what_waits(lake, usecase)
    assert f"from {DAYS[4]} on, wait for topic {usecase.name}_payments, partition " in said
    assert said.endswith("landed until 2026-01-09 12:00 UTC")


def test_when_the_feed_has_caught_up_the_sensor_asks_for_what_waited(lake, usecase):
    stop = datetime.combine(DAYS[5], time(6), tzinfo=UTC)
    everything = published(usecase)
    early = published(usecase, until=stop)
    put(lake, usecase, early)
    ingest(lake, usecase)

    class Station:
        pass

    station = Station()
    station.lake = lake
    now = datetime(2026, 2, 1, tzinfo=UTC)
    reach, passed, waits = _progress(station, usecase, None, now)
    assert not passed.outcomes
    assert "_payments, partition" in waits
    put(lake, usecase, [m for m in everything if m not in early])
    after, passed, _ = _progress(station, usecase, reach, now)
    assert after.labels > reach.labels
    known = {at.date() for at in passed.outcomes}
    assert set(DAYS[6:]) <= known
    assert _progress(station, usecase, after, now)[1].outcomes == []
    assert Reach() != after


def test_a_feed_that_landed_late_is_seen_by_the_label_and_the_label_is_known_late(lake, usecase):
    """Guards: on the live clock what lands late is known late; cut at the usual time, the label would not see it."""
    everything = published(usecase)
    stop = datetime.combine(DAYS[5], time(6), tzinfo=UTC)
    put(lake, usecase, published(usecase, until=stop))
    behind = [m for m in everything if m not in published(usecase, until=stop)]
    caught_up = datetime(2026, 1, 19, 12, tzinfo=UTC)
    put(lake, usecase, behind, clock="live", now=caught_up)
    ingest(lake, usecase)
    labels = labels_of(lake, usecase)
    late = labels.filter(pc.equal(labels["outcome_date"], pa.scalar(DAYS[7])))
    assert 0 < pc.mean(late["label"]).as_py() < 0.8, "the payments that landed late count"
    assert set(late["label_known_at"].to_pylist()) == {caught_up}


def test_landed_but_not_ingested_is_no_outcome(lake, usecase):
    """Guards: landing is complete, the ingestion of payments has failed, and labels are made all the same."""
    put(lake, usecase, published(usecase))
    for day in DAYS:
        curate_dates(lake, usecase, usecase.event("invoices"), [day])
    curate_dates(lake, usecase, usecase.event("payments"), DAYS[:5])
    compute_features(lake, usecase, DAYS, threads=1)
    report = mature_labels(lake, usecase, DAYS, threads=1)
    assert max(labels_of(lake, usecase)["outcome_date"].to_pylist()) < DAYS[5]
    assert f"event payments of {DAYS[5]}: has landed and has not been ingested" in report.slowest
    assert report.slowest.endswith(f"`ml-assets ingest {usecase.name} --from {DAYS[5]} --to {DAYS[5]}`")


@pytest.mark.parametrize("fault", ["cannot be read", "breaks a rule"])
def test_a_date_that_is_mostly_in_quarantine_is_no_outcome(lake, usecase, fault):
    """Guards: payments whose format has changed have landed and are ingested, their run fails, and the run of the next
    date made a label 'unpaid' of each of them.
    """

    def broken(message):
        if message.topic != usecase.event("payments").topic or message.timestamp_ms < start:
            return message
        value = b"{" if fault == "cannot be read" else message.value.replace(b'"payer":"P', b'"payer":"\\u200bP')
        return message._replace(value=value)

    start = datetime.combine(DAYS[5], time(0), tzinfo=UTC).timestamp() * 1000
    put(lake, usecase, [broken(message) for message in published(usecase)])
    report = ingest(lake, usecase)
    assert max(labels_of(lake, usecase)["outcome_date"].to_pylist()) < DAYS[5]
    assert report.waiting == 20 * len(report.immature)
    why = f"event payments of {DAYS[5]}: more of it is in quarantine than its limits let through"
    assert why in report.slowest
    assert any(why in said for said in what_waits(lake, usecase))


def test_rows_of_one_time_that_land_in_two_commits_are_all_in_the_outcome(lake, usecase):
    """Guards: a file published at 06:00, when the outcome is known, of which a part has landed: what comes after, known
    at the same time, asks for the label again.
    """

    class Station:
        pass

    station = Station()
    station.lake = lake
    put(lake, usecase, published(usecase))
    ingest(lake, usecase)
    now = datetime(2026, 2, 1, tzinfo=UTC)
    reach, passed, _ = _progress(station, usecase, None, now)
    assert not passed.outcomes
    again, passed, _ = _progress(station, usecase, reach, now, datetime.combine(DAYS[5], time(6), tzinfo=UTC))
    assert again == reach
    assert min(passed.outcomes) == datetime.combine(DAYS[5], time(6), tzinfo=UTC)
    assert _progress(station, usecase, reach, now, reach.labels + timedelta(seconds=1))[1].outcomes == []


def test_a_producers_clock_of_2099_matures_nothing(lake, usecase):
    stop = datetime.combine(DAYS[5], time(6), tzinfo=UTC)
    messages = published(usecase, until=stop)
    far = datetime(2099, 1, 1, tzinfo=UTC)
    wrong = [
        late_payments.message(f"{usecase.name}_payments", far, event_id=f"far{n}", invoice_id="none", payer="P1")
        for n in range(2)
    ]
    put(lake, usecase, [*messages, *wrong])
    ingest(lake, usecase)
    assert max(labels_of(lake, usecase)["outcome_date"].to_pylist()) < DAYS[5]


def test_a_quiet_topic_matures_by_the_landers_heartbeat(lake, usecase):
    """A topic on which nothing happens any more is no topic that is late: the lander has seen its end."""
    stop = datetime.combine(DAYS[5], time(6), tzinfo=UTC)
    put(lake, usecase, published(usecase, until=stop))
    assert ingest(lake, usecase).immature
    seen = datetime(2026, 1, 20, tzinfo=UTC)
    for event in usecase.events:
        assert Heartbeats(lake, None, "live").note(event, 2, {0: seen, 1: seen})
    assert not ingest(lake, usecase).immature
    assert Heartbeats(lake, None, "replay").note(usecase.events[0], 2, {0: seen}) is False


@pytest.mark.parametrize("horizon", [timedelta(days=30), timedelta(days=200)])
def test_a_horizon_has_no_cap_and_outcomes_mature_on_any_day(lake, usecase, horizon):
    """Guards against decisions that vanish: more than 15 days ahead, known after 75, or on a weekend or holiday."""
    far = long_horizon(usecase, horizon)
    put(lake, far, published(usecase))
    for event in far.events:
        curate_dates(lake, far, event, DAYS)
    made = compute_features(lake, far, DAYS, threads=1)
    assert made.rows == 20 * len(DAYS)
    outcomes = set(lake.read(features_table(far))["outcome_date"].to_pylist())
    assert any(day.weekday() >= 5 for day in outcomes)
    later = datetime(2026, 11, 1, tzinfo=UTC)
    for event in far.events:
        Heartbeats(lake, None, "live").note(event, 2, {0: later, 1: later})
    ahead = (LAST - DAYS[0] + horizon).days + 7
    weekdays = [d for n in range(ahead) if (d := DAYS[0] + timedelta(days=n)).weekday() < 5]
    report = mature_labels(lake, far, weekdays, threads=1)
    assert report.rows == made.rows == report.labelled
    assert report.waiting == report.without_outcome == 0


def long_horizon(usecase: UseCase, horizon: timedelta, label_sql: str = "") -> UseCase:
    """The use case, whose invoices are judged so many days after they were raised, known at the next midnight."""
    far = dataclasses.replace(
        usecase,
        label=LabelSpec("late", "Not paid.", lambda day: datetime.combine(day + timedelta(days=1), time(), tzinfo=UTC)),
    )
    decisions = usecase.feature_sql["decisions"].replace(
        "due_date AS outcome_date", f"(event_time::DATE + {horizon.days}) AS outcome_date"
    )
    assert decisions != usecase.feature_sql["decisions"]
    far.__dict__["feature_sql"] = {**usecase.feature_sql, "decisions": decisions}
    if label_sql:
        far.__dict__["label_sql"] = label_sql
    return far


AS_IT_HAPPENS = """
SELECT entity_id, (p.invoice_id IS NOT NULL)::INT AS label, p.known_at
FROM (SELECT DISTINCT entity_id FROM decisions)
LEFT JOIN payments p ON p.invoice_id = entity_id
"""


def test_an_outcome_can_be_known_as_soon_as_it_happens(lake, usecase):
    """'Was it ever paid within 20 days' is known with the payment, or at the end of the 20 days; each label once."""
    far = long_horizon(usecase, timedelta(days=20), AS_IT_HAPPENS)
    put(lake, far, published(usecase))
    report = ingest(lake, far)
    labels = labels_of(lake, far)
    assert report.early == labels.num_rows > 100
    assert set(labels["label"].to_pylist()) == {1}
    assert all(
        row["label_known_at"].date() == row["known_date"] and row["label_known_at"] > row["decision_time"]
        for row in labels.to_pylist()
    )
    later = datetime(2026, 3, 1, tzinfo=UTC)
    for event in far.events:
        Heartbeats(lake, None, "live").note(event, 2, {0: later, 1: later})
    weekdays = [d for n in range(45) if (d := DAYS[0] + timedelta(days=n)).weekday() < 5]
    assert mature_labels(lake, far, weekdays, threads=1).rows == 20 * len(DAYS)
    labels = labels_of(lake, far)
    assert len(set(labels["entity_id"].to_pylist())) == labels.num_rows, "each label once"
    assert set(labels["label"].to_pylist()) == {0, 1}


def test_a_label_that_says_it_is_known_later_than_it_sees_is_refused(lake, usecase):
    wrong = AS_IT_HAPPENS.replace("p.known_at", "p.known_at + INTERVAL 100 DAY AS known_at")
    far = long_horizon(usecase, timedelta(days=20), wrong)
    put(lake, far, published(usecase))
    with pytest.raises(ValueError, match=r"label.sql says that the outcome of .* became known at"):
        ingest(lake, far)


def test_what_can_never_be_labelled_is_left_out_when_features_are_made(lake, usecase):
    """Guards: an outcome that is known before the decision gives no label, and nobody says so."""
    put(lake, usecase, published(usecase))
    for event in usecase.events:
        curate_dates(lake, usecase, event, DAYS)
    before = dataclasses.replace(usecase)
    some = usecase.feature_sql["decisions"].replace(
        "due_date AS outcome_date",
        "CASE WHEN payer = 'P1' THEN event_time::DATE - 2 ELSE due_date END AS outcome_date",
    )
    before.__dict__["feature_sql"] = {**usecase.feature_sql, "decisions": some}
    report = compute_features(lake, before, DAYS[:1], threads=1)
    assert (report.impossible, report.rows) == (2, 18)
    assert report.refused[0][2] == "its outcome date 2026-01-03 is known 2026-01-05 06:00, before the decision"
    before.__dict__["feature_sql"] = {
        **usecase.feature_sql,
        "decisions": usecase.feature_sql["decisions"].replace("due_date AS", "event_time::DATE - 9 AS"),
    }
    with pytest.raises(ValueError, match="no decision of 2026-01-05 can ever be labelled"):
        compute_features(lake, before, DAYS[:1], threads=1)


def test_waits_for_names_events_of_the_use_case(usecase):
    with pytest.raises(ValueError, match="label waits for paymets, which is none of its events"):
        dataclasses.replace(usecase, label=dataclasses.replace(usecase.label, waits_for=("paymets",)))
    declared = dataclasses.replace(usecase, label=dataclasses.replace(usecase.label, waits_for=("invoices",)))
    assert declared.label.waits_for == ("invoices",)
