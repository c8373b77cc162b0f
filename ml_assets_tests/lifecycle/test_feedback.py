"""What people say at the desk reaches the feature SQL as an event: once, and not before it was known."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_assets.answers import DeskFeedback, desk_feedback
from ml_assets.contracts import TIMESTAMP, to_columns
from ml_assets.database.connect import connect
from ml_assets.database.feedback import write_feedback
from ml_assets.desk.sending import Sending
from ml_assets.errors import StateError
from ml_assets.features import AsOfDatabase
from ml_assets.lake import Lake, curated_table
from ml_assets.landing.kafka import KafkaConnection
from ml_assets.landing.lander import Lander
from ml_assets.landing.produce import ensure_topics
from ml_assets.lifecycle.feedback import FeedbackOutbox, reads_feedback
from ml_assets.lifecycle.ingestion import curate_dates
from ml_assets.predictions.feedback import Said, Shown
from ml_assets.settings import Settings
from ml_assets.spec import Feature, UseCase
from ml_assets.usecases.settlement_fails.usecase import USE_CASE
from ml_assets_tests import late_payments
from ml_assets_tests.desk.made import Ground

DECIDED = date(2026, 1, 20)
SQL = """
SELECT entity_id,
    count(said.event_id) FILTER (WHERE said.what = 'acted') AS acted_before,
    max(said.value) FILTER (WHERE said.what = 'judged' AND said.value <> said.shown_cause) AS corrected_to
FROM decisions LEFT JOIN (
    FROM desk_feedback WHERE event_id NOT IN (SELECT undoes FROM desk_feedback WHERE undoes IS NOT NULL)
) AS said USING (entity_id)
GROUP BY entity_id
"""


@pytest.fixture(scope="module")
def usecase(tmp_path_factory: pytest.TempPathFactory) -> UseCase:
    """Late payments, whose features read what people said."""
    folder = tmp_path_factory.mktemp("said")
    made = late_payments.usecase_of(late_payments.make_package(folder))
    (made.folder / "features" / "said.sql").write_text(SQL)
    features = (
        Feature("acted_before", "How often somebody has acted on it"),
        Feature("corrected_to", "What the reason really was", kind="categorical"),
    )
    return replace(made, events=(*made.events, desk_feedback(made.name)), features=(*made.features, *features))


@pytest.fixture(scope="module")
def invoices(usecase: UseCase) -> pa.Table:
    """The invoices of the day of the decision."""
    event = usecase.event("invoices")
    rows = [
        event.contract(
            event_id=f"I{n}", event_time=datetime(2026, 1, 20, 9, tzinfo=UTC), invoice_id=f"I{n}", payer="P1",
            amount=100.0, due_date=date(2026, 1, 22),
        )
        for n in range(4)
    ]  # fmt: skip
    return table(rows, [row.event_time for row in rows])


def table(rows: list, known: list[datetime]) -> pa.Table:
    columns = to_columns(type(rows[0]), rows) | {"known_at": pa.array(known, TIMESTAMP)}
    return pa.table(columns | {"business_date": pa.array([row.business_date for row in rows], pa.date32())})


def test_it_is_off_unless_the_use_case_names_the_event(usecase: UseCase) -> None:
    from ml_assets.usecases import discover

    assert reads_feedback(usecase)
    assert not any(map(reads_feedback, discover()))


LINES = st.lists(
    st.tuples(
        st.integers(0, 3), st.sampled_from(["acted", "judged", "noted", "undone"]), st.integers(-600, 600),
        st.integers(0, 120), st.integers(0, 9),
    ),
    min_size=1,
    max_size=12,
)  # fmt: skip


@settings(deadline=None, max_examples=15)
@given(lines=LINES)
def test_what_is_said_or_lands_after_the_decision_is_not_seen(usecase, invoices, lines) -> None:
    """Guards the leak that matters most here: analysts write down what came of it once the outcome is known."""
    (decision,) = usecase.decision_times(DECIDED)
    rows, known = [], []
    for number, (entity, what, minutes, later, earlier) in enumerate(lines):
        at = decision.as_of + timedelta(minutes=minutes)
        rows.append(
            DeskFeedback(
                event_id=f"feedback-{number}", event_time=at, outcome_date=date(2026, 1, 22), entity_id=f"I{entity}",
                what=what, value={"acted": "PAYER", "judged": "OTHER"}.get(what),
                undoes=f"feedback-{earlier}" if what == "undone" else None, decision_time=at, shown_priority=1,
                shown_probability=0.5, shown_cause="PAYER", in_time=True,
            )
        )  # fmt: skip
        known.append(at + timedelta(minutes=later))
    all_of, until = table(rows, known), [n for n, at in enumerate(known) if at <= decision.as_of]
    made = []
    for said in (all_of, all_of.take(pa.array(until, pa.int64()))):
        with AsOfDatabase(usecase, {"invoices": invoices, "desk_feedback": said}, {}, threads=1) as history:
            made.append(history.features(decision).to_pylist())
    assert made[0] == made[1]
    taken_back = {rows[n].undoes for n in until}
    counted = [rows[n] for n in until if rows[n].event_id not in taken_back]
    for row in made[0]:
        mine = [one.what for one in counted if one.entity_id == row["entity_id"]]
        assert row["acted_before"] == mine.count("acted")
        assert row["corrected_to"] == ("OTHER" if "judged" in mine else None)


NOW = datetime(2026, 1, 20, 17, tzinfo=UTC)


def say(engine: str, usecase: UseCase, entity: str, value: str = "PAYER", **more: object) -> int:
    shown = Shown(
        decision_time=NOW, priority=1, probability=0.5, expected_cost=10.0, cause="PAYER", model_version=1,
        mlflow_run_id="run", cut_off_at=NOW + timedelta(hours=1),
    )  # fmt: skip
    said = Said(
        **{"entity_id": entity, "what": "acted", "actor": "ana", "request_key": uuid4().hex, "value": value} | more
    )
    written = write_feedback(
        engine, usecase.name, date(2026, 1, 22), [(said, shown)], now=NOW, lease_length=timedelta(hours=1),
        causes=["PAYER"],
    )  # fmt: skip
    return written.saved[entity]


def test_the_ledger_lands_once_whatever_is_sent_again(
    broker: KafkaConnection, application_url: str, lake: Lake, usecase: UseCase
) -> None:
    """Guards a desk that is restarted between sending and landing, and two pods that send the same line."""
    name = f"late_{uuid4().hex[:8]}"
    event = desk_feedback(name)
    mine = replace(usecase, name=name, events=(*usecase.events[:2], event))
    ensure_topics(broker, [event.topic], partitions=1)
    first = say(application_url, mine, "I1")
    say(application_url, mine, "I2", what="judged", value="OTHER", note="they called")
    one, other = FeedbackOutbox(mine), FeedbackOutbox(mine)
    assert one.send(lake, application_url, broker) == 2
    assert one.send(lake, application_url, broker) == 0  # on its way
    assert other.send(lake, application_url, broker) == 2  # another pod, or this one after a restart
    Lander(lake, [event], broker, clock="replay").land_available()
    say(application_url, mine, "I1", what="undone", value=None, undoes=first)
    assert FeedbackOutbox(mine).send(lake, application_url, broker) == 1  # what has landed is not sent again
    Lander(lake, [event], broker, clock="replay").land_available()
    assert one.send(lake, application_url, broker) == 0
    report = curate_dates(lake, mine, event, [NOW.date()])
    assert (report.rows, report.duplicates) == (3, 2)
    rows = sorted(lake.read(curated_table(mine, event)).to_pylist(), key=lambda row: row["event_id"])
    assert [(row["entity_id"], row["what"], row["value"]) for row in rows] == [
        ("I1", "acted", "PAYER"), ("I2", "judged", "OTHER"), ("I1", "undone", None),
    ]  # fmt: skip
    assert rows[2]["undoes"] == rows[0]["event_id"]
    assert {row["known_at"] for row in rows} == {NOW}
    assert not {"actor", "note"} & set(rows[0])


def test_what_the_broker_does_not_take_is_sent_later(
    broker: KafkaConnection, application_url: str, lake: Lake, usecase: UseCase, tmp_path: Path, monkeypatch
) -> None:
    """Guards words that are lost since no broker ran, or since it refused them, while the desk was open."""
    name = f"late_{uuid4().hex[:8]}"
    mine = replace(usecase, name=name, events=(*usecase.events[:2], desk_feedback(name)))
    say(application_url, mine, "I1")
    outbox = FeedbackOutbox(mine)

    def refuses(*_: object) -> int:
        raise StateError("the broker did not take 1 of 1 messages")

    with monkeypatch.context() as patched:
        patched.setattr("ml_assets.lifecycle.feedback.produce", refuses)
        with pytest.raises(StateError):
            outbox.send(lake, application_url, broker)
    engine = connect(application_url)
    try:
        where: list[KafkaConnection | None] = [None]
        sending = Sending(Ground(Settings(home=tmp_path), engine), [mine, USE_CASE], lambda: where[0])
        assert sending.turn() == 0  # no broker runs
        where[0] = broker
        assert (sending.turn(), sending.turn()) == (1, 0)
    finally:
        engine.dispose()
