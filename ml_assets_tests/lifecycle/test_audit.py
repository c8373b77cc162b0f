"""The audit finds a training set that was not made from what was known, and passes one that was."""

import dataclasses
from datetime import UTC, date, datetime, timedelta

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pytest

from ml_assets.contracts import TIMESTAMP, to_columns
from ml_assets.defs.checks.training import judge_leaks
from ml_assets.errors import InputError
from ml_assets.features import as_of
from ml_assets.lake import Lake, curated_table, daily_table, features_table, labels_table
from ml_assets.landing.extent import TopicProgress
from ml_assets.learning.training_set import TrainingSetError
from ml_assets.lifecycle import features as features_module
from ml_assets.lifecycle.audit import audit_training_set
from ml_assets.lifecycle.features import compute_features, mature_labels
from ml_assets.lifecycle.lineage import features_again
from ml_assets.lifecycle.training import assemble_training_set, refuse_too_large
from ml_assets.spec import DailySpec, Feature
from ml_assets_tests import late_payments

DAYS = list(late_payments.CALENDAR.between(late_payments.FIRST, date(2026, 3, 31)))[:22]


SEEN = """
    SELECT entity_id, coalesce(payments, 0)::DOUBLE AS payments_seen
    FROM decisions LEFT JOIN (SELECT payer, count(*) AS payments FROM payments GROUP BY payer) USING (payer)
"""


@pytest.fixture(scope="module")
def usecase(tmp_path_factory):
    """Late payments, with a feature that tells how many payments have been seen of the payer."""
    made = late_payments.usecase_of(late_payments.make_package(tmp_path_factory.mktemp("audit"), "audited"))
    seen = dataclasses.replace(made, features=(*made.features, Feature("payments_seen", "Payments of the payer")))
    seen.__dict__["feature_sql"] = {**made.feature_sql, "seen": SEEN}
    return seen


def curate(lake: Lake, usecase, *, known_early: str = "") -> None:
    """Write the curated tables; of `known_early`, all was known when the market opened, as a wrong clock would say."""
    messages = list(late_payments.messages(len(DAYS), per_day=30, name="audited"))
    for event in usecase.events:
        mine = [m for m in messages if m.topic == event.topic]
        rows = [msgspec.json.decode(m.value, type=event.contract) for m in mine]
        known = [datetime.fromtimestamp(m.timestamp_ms / 1000, UTC) for m in mine]
        if event.name == known_early:
            known = [datetime(2026, 1, 1, tzinfo=UTC)] * len(mine)
        dates = pa.array([row.business_date for row in rows], pa.date32())
        table = pa.table(
            {**to_columns(event.contract, rows), "known_at": pa.array(known, TIMESTAMP), "business_date": dates}
        )
        lake.replace(curated_table(usecase, event), table, "business_date", dates.to_pylist())


def train(lake: Lake, usecase, monkeypatch) -> None:
    landed = TopicProgress("all", {0: datetime(2027, 1, 1, tzinfo=UTC)})
    monkeypatch.setattr(features_module, "label_progress", lambda *_: landed)
    compute_features(lake, usecase, DAYS, threads=1)
    mature_labels(lake, usecase, DAYS, threads=1)
    assemble_training_set(lake, usecase, DAYS[-1])


def test_an_honest_training_set_passes(lake, usecase, monkeypatch):
    curate(lake, usecase)
    train(lake, usecase, monkeypatch)
    report = audit_training_set(lake, usecase, DAYS[-1], threads=1)
    assert report.passed, report
    assert (report.decisions, len(report.audited)) == (480, 16)
    assert judge_leaks(report).passed
    assert 0.5 < max(report.auc.values()) < report.limit


def test_features_that_saw_what_was_not_known_are_found(lake, usecase, monkeypatch):
    """Guards: payments were stamped as known too early when the features were made, and later put right."""
    curate(lake, usecase, known_early="payments")
    train(lake, usecase, monkeypatch)
    curate(lake, usecase)
    report = audit_training_set(lake, usecase, DAYS[-1], threads=1)
    assert not report.passed
    assert set(report.differing) == {"payments_seen"}
    said = judge_leaks(report)
    assert not said.passed
    assert said.metadata["differ from what was known"].value.startswith("payments_seen: ")


def test_events_known_before_they_happened_are_found(lake, usecase, monkeypatch):
    """Guards: with a wrong stamp on the rows themselves, features and audit agree and are both wrong."""
    curate(lake, usecase, known_early="payments")
    train(lake, usecase, monkeypatch)
    report = audit_training_set(lake, usecase, DAYS[-1], threads=1)
    assert not report.passed
    assert set(report.known_too_early) == {"payments"}


def test_a_feature_that_is_too_good_is_found(lake, usecase, monkeypatch):
    """Guards: the source writes the outcome into the event that is known at the decision."""
    curate(lake, usecase)
    sql = {
        **usecase.feature_sql,
        "leak": "SELECT entity_id, date_diff('day', getvariable('decision_date'), outcome_date) AS days_to_due, "
        "0 AS told FROM decisions",
    }
    features = (*usecase.features, Feature("days_to_due", ""), Feature("told", "The reason that came with the fail"))
    leaking = dataclasses.replace(usecase, features=features)
    leaking.__dict__["feature_sql"] = sql
    train(lake, leaking, monkeypatch)
    name = f"training_sets/{usecase.name}"
    rows = lake.read(name, where=ds.field("training_date") == DAYS[-1])
    told = pc.cast(rows["label"], pa.float64())
    lake.replace(name, rows.set_column(rows.column_names.index("told"), "told", told), "training_date", [DAYS[-1]])
    report = audit_training_set(lake, leaking, DAYS[-1], threads=1)
    assert report.suspects == {"told": 1.0}
    assert "told" in report.differing
    assert not report.passed


def test_features_made_before_one_was_added_are_refused(lake, usecase, monkeypatch):
    """Guards an upgrade: Delta reads a column that older files lack as unknown, and a model would learn from that."""
    before = dataclasses.replace(usecase, features=usecase.features[:-1])
    before.__dict__["feature_sql"] = {name: sql for name, sql in usecase.feature_sql.items() if name != "seen"}
    curate(lake, usecase)
    train(lake, before, monkeypatch)
    with pytest.raises(TrainingSetError, match=r"files of .* before payments_seen was among the features; materialize"):
        assemble_training_set(lake, usecase, DAYS[-1])
    compute_features(lake, usecase, DAYS[8:], threads=1)
    with pytest.raises(TrainingSetError, match="before payments_seen was among the features"):
        assemble_training_set(lake, usecase, DAYS[-1])
    compute_features(lake, usecase, DAYS, threads=1)
    assemble_training_set(lake, usecase, DAYS[-1])
    assert audit_training_set(lake, usecase, DAYS[-1], threads=1).passed


def test_an_audit_of_nothing_has_not_passed(lake, usecase):
    from ml_assets.lifecycle.audit import LeakReport

    assert not LeakReport(audited=(), decisions=0).passed
    with pytest.raises(FileNotFoundError, match="materialize"):
        audit_training_set(lake, usecase, DAYS[0] + timedelta(days=700))


def test_a_training_that_needs_more_memory_than_there_is_is_refused_before_it_starts(lake, usecase, monkeypatch):
    """Guards a Job that is killed after an hour, retried with twice the memory, and killed again."""
    lake.replace(features_table(usecase), _decisions(DAYS[0]), "decision_date", [DAYS[0]])
    lake.replace(labels_table(usecase), _decisions(DAYS[0]), "decision_date", [DAYS[0]])
    monkeypatch.setattr(lake, "read", None)
    says = r"training on 2 decisions of \d+ dates needs about 0.5 GiB, and this process may use 0.3 GiB; give it more: "
    with pytest.raises(InputError, match=says + "ML_ASSETS_MEMORY_MIB .*SplitSpec"):
        assemble_training_set(lake, usecase, DAYS[-1], memory=300 * 2**20)
    refuse_too_large(lake, usecase, DAYS[-1], 600 * 2**20)
    refuse_too_large(lake, usecase, DAYS[0] - timedelta(days=1), 512 * 2**20)


def _decisions(day: date) -> pa.Table:
    return pa.table({"entity_id": ["a", "b"], "decision_date": pa.array([day] * 2, pa.date32())})


def test_sql_that_sees_the_future_on_one_date_is_found(lake, usecase, monkeypatch):
    """Guards: an audit of a few decision times looks past the date on which the SQL does."""
    curate(lake, usecase)
    monkeypatch.setattr(as_of, "refuse_foreign", lambda _: None)
    monkeypatch.setattr(as_of.secrets, "token_hex", lambda _: "known")
    leaking = dataclasses.replace(usecase)
    leaking.__dict__["feature_sql"] = {
        **usecase.feature_sql,
        "seen": f"""
            SELECT entity_id, (SELECT count(*) FROM history_known.payments)::DOUBLE
                * (getvariable('decision_date') = DATE '{DAYS[5]}')::INT AS payments_seen
            FROM decisions
        """,
    }
    train(lake, leaking, monkeypatch)
    report = audit_training_set(lake, leaking, DAYS[-1], threads=1)
    assert report.differing == {"payments_seen": 30}


def test_a_daily_table_is_made_again_of_what_each_day_knew(lake, usecase, monkeypatch):
    """Guards: the parts of days that are over are kept, so a part that saw the future stays wrong."""
    curate(lake, usecase)
    text = "SELECT payer, count(*) AS payments FROM payments WHERE known_at >= getvariable('day_start') GROUP BY payer"
    daily = dataclasses.replace(usecase, daily=(DailySpec("paid", "Payments of a day."),))
    daily.__dict__["daily_sql"] = {"paid": text}
    daily.__dict__["feature_sql"] = {
        **usecase.feature_sql,
        "seen": "SELECT entity_id, sum(payments)::DOUBLE AS payments_seen FROM decisions LEFT JOIN paid USING (payer) "
        "GROUP BY entity_id",
    }
    train(lake, daily, monkeypatch)
    assert audit_training_set(lake, daily, DAYS[-1], threads=1).passed
    parts = lake.read(daily_table(daily, "paid"))
    for day in set(parts["known_date"].to_pylist()):
        mine = parts.filter(pc.field("known_date") == pa.scalar(day))
        more = mine.set_column(mine.column_names.index("payments"), "payments", pc.add(mine["payments"], 1))
        lake.replace(daily_table(daily, "paid"), more, "known_date", [day])
    compute_features(lake, daily, DAYS[-6:], threads=1)
    assemble_training_set(lake, daily, DAYS[-1])
    assert set(audit_training_set(lake, daily, DAYS[-1], threads=1).differing) == {"payments_seen"}


# Whether an invoice is paid on its due date, decided in the evening of that date: it has been by noon, or is not.
PAID = """
    SELECT entity_id, (p.invoice_id IS NOT NULL)::INT AS label{known}
    FROM (SELECT DISTINCT entity_id FROM decisions)
    LEFT JOIN payments AS p ON p.invoice_id = entity_id AND p.event_time::DATE <= getvariable('decision_date')
"""


def decided_too_late(usecase, known: str):
    asked = dataclasses.replace(usecase)
    decisions = usecase.feature_sql["decisions"].replace("event_time::DATE =", "due_date =")
    asked.__dict__["feature_sql"] = {**usecase.feature_sql, "decisions": decisions}
    asked.__dict__["label_sql"] = PAID.format(known=known)
    return asked


@pytest.mark.parametrize("known", ["", ", p.known_at AS known_at"])
def test_outcomes_that_came_before_their_decision_are_counted_and_refused(lake, usecase, monkeypatch, known):
    """Guards: 83 % of the positives had happened when they were decided on, and neither check nor gate objected."""
    asked = decided_too_late(usecase, known)
    curate(lake, asked)
    train(lake, asked, monkeypatch)
    report = audit_training_set(lake, asked, DAYS[-1], threads=1)
    assert report.settled.share == 1
    assert report.settled.settled > 100
    assert not report.passed
    said = judge_leaks(report)
    assert "had happened when they were decided" in said.description
    assert "of " in said.metadata["had happened when decided"].value
    assert dataclasses.replace(report, max_settled=1.0).passed


def test_a_label_that_is_1_until_something_happens_has_not_been_settled(lake, usecase, monkeypatch):
    """Guards honest use cases: an invoice that is not paid is unpaid (1) at the decision too, and most are paid."""
    curate(lake, usecase)
    train(lake, usecase, monkeypatch)
    report = audit_training_set(lake, usecase, DAYS[-1], threads=1)
    assert (report.settled.settled, report.came_before) == (0, False)
    assert report.settled.positives > 50


def test_a_training_set_says_which_parts_are_shorter_than_asked(lake, usecase, monkeypatch):
    """Guards: 300 training days were asked for and 288 used, and nobody was told."""
    curate(lake, usecase)
    train(lake, usecase, monkeypatch)
    assert assemble_training_set(lake, usecase, DAYS[-1]).shorter == []
    longer = dataclasses.replace(usecase, split=dataclasses.replace(usecase.split, train_days=15))
    report = assemble_training_set(lake, longer, DAYS[-1])
    there = report.parts["train"]["dates"]
    assert 8 <= there < 15
    assert report.shorter == [f"train has {there} decision dates, of 15 that SplitSpec asks for"]


def test_a_row_known_in_time_of_a_later_business_date_is_seen_again(lake, usecase):
    """Guards the walk back from a prediction: with an end of its own it did not see a row of a clock that ran ahead."""
    curate(lake, usecase)
    event, (decision,) = usecase.event("payments"), usecase.decision_times(DAYS[12])
    name = curated_table(usecase, event)
    rows = lake.read(name, where=ds.field("business_date") == DAYS[13])
    known = pa.array([decision.as_of - timedelta(minutes=1)] * rows.num_rows, TIMESTAMP)
    ahead = rows.set_column(rows.schema.get_field_index("known_at"), "known_at", known)
    lake.replace(name, ahead, "business_date", [DAYS[13]])
    compute_features(lake, usecase, [DAYS[12]], threads=1)
    stored = lake.read(features_table(usecase))
    versions = {
        curated_table(usecase, one): lake.table(curated_table(usecase, one)).version() for one in usecase.events
    }
    for entity in stored["entity_id"].to_pylist()[:3]:
        again = features_again(lake, usecase, entity, decision, versions, 1)
        assert again.equals(stored.filter(pc.equal(stored["entity_id"], entity)))
    lake.replace(name, rows, "business_date", [DAYS[13]])
    assert features_again(lake, usecase, entity, decision, versions, 1).equals(again), "as the tables stood then"
