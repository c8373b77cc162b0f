"""What champion, canary and challenger said in the scoring service, by the ledger and by landed scores."""

from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ml_assets.answers import SERVED_SCORES, ServedScore
from ml_assets.contracts import TIMESTAMP, to_columns
from ml_assets.database.promotions import Actor, ModelIdentity, declare_tiers, record, take_back, writing
from ml_assets.lake import Lake, landing_table
from ml_assets.landing.schemas import PARTITIONED_BY, landing_schema
from ml_assets.lifecycle.stages import served_stages
from ml_assets_tests.serving.answers import answer

FAILS: Any = SimpleNamespace(name="settlement_fails")


def add(url: str, action: Any, version: int, share: float | None = None) -> Any:
    model = ModelIdentity(version, f"run{version}", f"{version:064d}", "e" * 64)
    with writing(url, FAILS.name) as ledger:
        return record(ledger, FAILS.name, action, model=model, actor=Actor.person("ann"), reason="x", share=share)


@pytest.fixture
def url(application_url: str) -> str:
    """A ledger with a champion, version 1, and a canary, version 2."""
    declare_tiers(application_url, {FAILS.name: "low"})
    for version in (1, 2):
        add(application_url, "registered", version)
    add(application_url, "promoted", 1)
    return application_url


def land(lake: Lake, scores: list[ServedScore]) -> None:
    rows = pa.table(to_columns(ServedScore, scores))
    n = len(scores)
    extra = {
        "kind": pa.array(["event"] * n),
        "business_date": pa.array([score.business_date for score in scores], pa.date32()),
        **{name: pa.array([score.event_time for score in scores], TIMESTAMP) for name in ("known_at", "landed_at")},
    }
    given = {name: rows[name] for name in rows.column_names} | extra
    schema = landing_schema(SERVED_SCORES)
    columns = [given[f.name].cast(f.type) if f.name in given else pa.nulls(n, f.type) for f in schema]
    appender = lake.appender(landing_table(SERVED_SCORES.topic), PARTITIONED_BY)
    assert appender.append(pa.table(columns, schema=schema), {"test": 0}, {"test": 1})


def log_odds(p: float) -> float:
    return float(np.log(p / (1 - p)))


def test_before_the_service_has_said_anything_the_ledger_is_shown(lake: Lake, url: str) -> None:
    canary = add(url, "canary", 2, 0.1)
    found = served_stages(lake, url, FAILS)
    assert (found.lines.champion.to_version, found.lines.running, found.lines.challenger) == (1, canary, canary)
    assert found.rows.num_rows == 0
    take_back(url, canary, "PSI 0.9")
    assert served_stages(lake, url, FAILS).lines.running is None


def test_scores_are_counted_by_stage_and_compared_with_the_champion_s_that_held_then(lake: Lake, url: str) -> None:
    """Guards the comparison: a shadow score holds until the next one, and one of later is not compared with before."""
    at = datetime.now(UTC) + timedelta(seconds=1)
    add(url, "canary", 2, 0.1)

    def said(name: str, seconds: float, probability: float, stage: str = "champion", **changes: Any) -> ServedScore:
        version = 1 if stage == "champion" else 2
        return answer(
            name, entity_id=name.split("-")[0], event_time=at + timedelta(seconds=seconds), probability=probability,
            stage=stage, model_version=version, mlflow_run_id=f"run{version}", **changes,
        )  # fmt: skip

    land(lake, [
        said("a-shadow", 0, 0.2, "shadow"), said("a-1", 1, 0.1, latency_ms=1.0), said("a-2", 2, 0.2, latency_ms=3.0),
        said("a-shadow2", 3, 0.9, "shadow"), said("b-1", 1, 0.3), said("b-2", 5, 0.4, "canary", latency_ms=7.0),
        said("c-1", 1, 0.5, what_if=True), said("c-2", 1, 0.6, "canary", what_if=True),
        said("a-other", 1, 0.5, use_case="cns_fails"), said("a-old", -3600, 0.5),
        answer("a-slot", entity_id="a", event_time=at + timedelta(seconds=9), slot="morning", probability=0.7),
    ])  # fmt: skip
    rows = served_stages(lake, url, FAILS, now=datetime.now(UTC) + timedelta(seconds=1)).rows.to_pylist()
    champion, canary, shadow = rows
    assert [row["stage"] for row in rows] == ["champion", "canary", "shadow"]
    assert [row["scores"] for row in rows] == [5, 2, 2]
    assert [row["what_ifs"] for row in rows] == [1, 1, 0]
    assert [row["compared"] for row in rows] == [0, 1, 2]
    assert champion["log_odds_difference"] is None
    assert canary["log_odds_difference"] == pytest.approx(log_odds(0.4) - log_odds(0.3))
    assert shadow["log_odds_difference"] == pytest.approx((log_odds(0.2) - log_odds(0.1)) / 2)
    assert (canary["p99_ms"] > canary["p50_ms"], shadow["p50_ms"]) == (True, None)
    assert (champion["entities"], champion["mlflow_run_id"]) == (3, "run1")


def test_what_was_said_before_the_champion_is_not_counted(lake: Lake, url: str) -> None:
    now = datetime.now(UTC)
    before = now - timedelta(minutes=5)
    land(lake, [answer("old", event_time=before), answer("new", event_time=now + timedelta(seconds=1))])
    (row,) = served_stages(lake, url, FAILS, now=now).rows.to_pylist()
    assert (row["scores"], row["first_at"].date()) == (1, date.fromisoformat(f"{now + timedelta(seconds=1):%Y-%m-%d}"))
