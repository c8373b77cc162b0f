"""The audit finds a training set that was not made from what was known, and passes one that was."""

import dataclasses
from datetime import UTC, date, datetime, timedelta

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pytest

from ml_assets.checks.training import judge_leaks
from ml_assets.contracts import TIMESTAMP, to_columns
from ml_assets.lake import Lake, curated_table
from ml_assets.learning.training_set import TrainingSetError
from ml_assets.lifecycle import features as features_module
from ml_assets.lifecycle.audit import audit_training_set
from ml_assets.lifecycle.features import compute_features, mature_labels
from ml_assets.lifecycle.training import assemble_training_set
from ml_assets.spec import Feature
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
    monkeypatch.setattr(features_module, "landed_watermark", lambda *_: datetime(2027, 1, 1, tzinfo=UTC))
    compute_features(lake, usecase, DAYS, threads=1)
    mature_labels(lake, usecase, DAYS, threads=1)
    assemble_training_set(lake, usecase, DAYS[-1])


def test_an_honest_training_set_passes(lake, usecase, monkeypatch):
    curate(lake, usecase)
    train(lake, usecase, monkeypatch)
    report = audit_training_set(lake, usecase, DAYS[-1], threads=1)
    assert report.passed, report
    assert report.decisions == 60
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
