"""The lifecycle of a small use case through its assets, on real servers."""

import dataclasses
import json
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from io import StringIO
from pathlib import Path

import dagster as dg
import msgspec
import pyarrow.compute as pc
import pytest
from rich.console import Console
from sqlalchemy import text
from starlette.testclient import TestClient

from ml_assets.answers import SERVED_SCORES, ServedScore
from ml_assets.cli.local_runs import RunFailedError, record_features
from ml_assets.cli.looking import not_made_again, print_lineage
from ml_assets.database.feedback import write_feedback
from ml_assets.database.promotions import Actor, ModelIdentity, record, writing
from ml_assets.database.work_list import next_outcome_date, work_list
from ml_assets.defs.assets.training import since_change
from ml_assets.defs.sensors import landed_data_sensor
from ml_assets.desk.app import Desk, build_app
from ml_assets.desk.people import Forms, by_login
from ml_assets.errors import NotFoundError, StateError
from ml_assets.governance import PackError
from ml_assets.lake import (
    curated_table,
    features_table,
    labels_table,
    landing_table,
    outcomes_table,
    predictions_table,
    quarantine_table,
    reference_table,
    tables_of,
)
from ml_assets.landing.lander import Lander
from ml_assets.landing.produce import ensure_topics
from ml_assets.learning.evidence import build_evidence
from ml_assets.learning.gate import judge
from ml_assets.learning.golden import GOLDEN_SAMPLE
from ml_assets.learning.training_set import PARTS, part_of
from ml_assets.lifecycle.backfill import LocalEngine, backfill
from ml_assets.lifecycle.backtest import backtest, by_month
from ml_assets.lifecycle.evaluation import (
    EVIDENCE,
    compare_models,
    evaluated_challenger,
    judge_now,
    judge_run,
    read_evidence,
    read_model_evidence,
)
from ml_assets.lifecycle.lineage import explain_answer, explain_prediction
from ml_assets.lifecycle.maintenance import maintain_lake
from ml_assets.lifecycle.monitoring import join_live_outcomes
from ml_assets.lifecycle.registration import register_challenger
from ml_assets.lifecycle.reproduce import CannotReproduceError, reproduce
from ml_assets.lifecycle.scoring import score_dates
from ml_assets.lifecycle.training import RunOrigin, read_training_set
from ml_assets.monitoring.outcomes import ONLINE
from ml_assets.predictions.feedback import (
    ACTED_ON,
    NOTHING_SAID,
    OTHER,
    REASON_CORRECTED,
    REASON_RIGHT,
    Said,
    Shown,
)
from ml_assets.registry import CHALLENGER, CHAMPION
from ml_assets.serving.models import ModelFiles
from ml_assets.serving.recorder import Recorder
from ml_assets.serving.scoring import Scoring
from ml_assets.spec import SliceSpec
from ml_assets_tests import late_payments
from ml_assets_tests.defs.assets.conftest import Bank
from ml_assets_tests.late_payments import message

pytestmark = [pytest.mark.end_to_end, pytest.mark.long]


def content(bank: Bank) -> Mapping[str, object]:
    """Every row of the tables that people and models read, whatever its order in files."""
    tables = [features_table(bank.usecase), labels_table(bank.usecase), predictions_table(bank.usecase)]
    tables += [
        table(bank.usecase, event) for event in bank.usecase.events for table in (curated_table, quarantine_table)
    ]
    found: dict[str, object] = {name: sorted(map(repr, bank.lake.read(name).to_pylist())) for name in tables}
    with bank.platform.engine.begin() as connection:
        rows = connection.execute(text("SELECT * FROM predictions ORDER BY entity_id, decision_time, model_version"))
        found["postgres"] = [tuple(row) for row in rows]
    return found


def test_every_stage_leaves_what_a_person_looks_at(bank):
    assert bank.latest("curated", "invoices")["dagster/row_count"] == 60 * len(bank.days)
    assert bank.latest("features")["dagster/row_count"] == 60 * len(bank.days)
    assert "| part | rows |" in bank.latest("training_set")["parts"]
    trained = bank.latest("candidates", "logistic")
    assert 0 < trained["pr_auc"] <= 1
    assert trained["plots/reliability.png"].startswith("![plots/reliability.png](data:image/png;base64,")
    assert bank.latest("champion")["champion_version"] == bank.latest("challenger")["model_version"]
    assert "| payer |" in bank.latest("predictions")["first 10 by expected cost"]


def test_every_table_that_the_lifecycle_makes_is_kept_in_shape(bank):
    """Guards: reference tables were in no list of tables, so that their old versions were kept for ever."""
    root = Path(bank.lake.root)
    made = {str(log.parent.relative_to(root)) for log in root.rglob("_delta_log")}
    assert reference_table(bank.usecase, bank.usecase.references[0]) in made
    assert made <= set(tables_of([bank.usecase]))


def test_what_a_backfill_has_made_is_shown_as_if_a_run_had(bank):
    """Guards dates that a backfill has made and that Dagster's UI shows as missing: nothing would follow from them."""
    before = content(bank)
    (part,) = backfill(bank.lake, bank.usecase, bank.days[-3:], LocalEngine(threads=1))
    told = record_features(bank.instance, bank.usecase, part.report, part.dates)
    assert content(bank) == before
    assert told == bank.latest("features")
    assert told["delta_version"] == bank.lake.version(features_table(bank.usecase))
    features = dg.AssetKey([bank.usecase.name, "features"])
    newest = bank.instance.fetch_materializations(features, limit=3).records
    assert {record.partition_key for record in newest} == set(map(str, bank.days[-3:]))
    checks = bank.instance.event_log_storage.get_latest_asset_check_execution_by_key(
        [dg.AssetCheckKey(features, name) for name in ("row_count", "freshness", "complete")]
    )
    assert len(checks) == 3
    assert {one.event.asset_check_evaluation.metadata["rows"].value for one in checks.values()
            if one.event.asset_check_evaluation.check_name == "row_count"} == {60 * 3}  # fmt: skip


def test_the_model_says_where_it_comes_from(bank):
    champion = bank.platform.registry.resolve(bank.usecase.name, CHAMPION)
    run = bank.platform.registry.candidate_runs(bank.usecase.name, bank.days[-1])
    tags = next(run.tags for run in run.values() if run.run_id == champion.run_id)
    versions = json.loads(tags["data_versions"])
    assert versions[features_table(bank.usecase)] == 1  # made empty, and then written once
    assert tags["git_commit"]
    assert bank.instance.get_run_by_id(tags["dagster_run_id"]).job_name == f"{bank.usecase.name}_retrain"


def test_the_trials_of_a_search_are_child_runs_and_never_candidates(bank):
    registry, name = bank.platform.registry, bank.usecase.name
    runs = registry.candidate_runs(name, bank.days[-1])
    assert set(runs) == {c.name for c in bank.usecase.candidates}
    search = json.loads(registry.read_evidence(runs["logistic"].run_id, "search.json"))
    assert len(search["trials"]) == 3
    assert "| trial |" in bank.latest("candidates", "logistic")["search"]
    trials = registry.trials(name, runs["logistic"].run_id)
    assert [run.params["C"] for run in trials] == [str(trial["parameters"]["C"]) for trial in search["trials"]]
    assert trials[0].metrics["pr_auc"] == pytest.approx(search["trials"][0]["value"])
    assert registry.trials(name, runs[bank.usecase.rule.name].run_id) == []


def test_a_model_is_made_again_from_the_versions_that_it_was_made_from(bank):
    """Guards: labels and features written since must not change what comes out."""
    registry, usecase = bank.platform.registry, bank.usecase
    version = registry.resolve(usecase.name, CHAMPION).version
    bank.runs.run("ingest", bank.days[-3:])
    made = reproduce(bank.lake, registry, usecase, version, code_version="now", threads=1)
    assert made.same, [c for c in made.comparisons if not c.same]
    assert {c.made_again for c in made.comparisons if c.what.startswith("probabilities")} == {"equal to the last bit"}
    assert made.code
    assert made.code_now == "now"


def test_a_model_that_comes_out_another_way_is_told(bank):
    registry, usecase = bank.platform.registry, bank.usecase
    run = registry.candidate_runs(usecase.name, bank.days[-1])["logistic"]
    version = registry.register(usecase.name, run.run_id, tags={}).version
    seeded = dataclasses.replace(usecase, seed=1)
    made = reproduce(bank.lake, registry, seeded, version, code_version="now")
    assert [c.what.split()[1] for c in made.comparisons if not c.same] == ["parameters"]
    changed = dataclasses.replace(usecase, candidates=(usecase.rule,))
    with pytest.raises(CannotReproduceError, match="has no candidate 'logistic' now; check out commit"):
        reproduce(bank.lake, registry, changed, version, code_version="now")
    fewer = dataclasses.replace(usecase, features=usecase.features[:2])
    with pytest.raises(CannotReproduceError, match="reads other features"):
        reproduce(bank.lake, registry, fewer, version, code_version="now")


def test_a_backtest_is_the_saved_model_on_unseen_days(bank):
    """Guards the frozen figures: the evaluation's own numbers on its window, and no day that was learned from."""
    registry, usecase = bank.platform.registry, bank.usecase
    comparison, _ = compare_models(bank.lake, registry, bank.platform.engine, usecase, bank.days[-1])
    days = comparison.window.dates.astype("datetime64[D]")
    first, last = days.min().item(), days.max().item()
    tried = backtest(bank.lake, registry, bank.platform.engine, usecase, first, last)
    assert tried.window.hash == comparison.window.hash
    assert tried.version == registry.resolve(usecase.name, CHAMPION).version
    assert tried.trained_until < tried.window.first_decision_time
    for p, name in ((tried.model, CHAMPION), (tried.rule, usecase.rule.name)):
        assert sorted(p) == sorted(comparison.probabilities[name])
    gate = dataclasses.replace(usecase.gate, slices=(SliceSpec("country", "payer_country", focus="DE"),))
    rows = by_month(dataclasses.replace(usecase, gate=gate), tried.window, tried.model, tried.rule)
    whole = rows[(rows["decisions"] == "all") & (rows["month"] == "all")].iloc[0]
    assert whole["per_day_pr_auc"] == pytest.approx(comparison.of(CHAMPION)["per_day_pr_auc"])
    assert set(rows["decisions"]) == {"all", "country"}
    german = rows[(rows["decisions"] == "country") & (rows["month"] == "all")].iloc[0]
    assert german["n"] == (tried.window.slices["country"] == "DE").sum() < whole["n"]
    with pytest.raises(ValueError, match="choose later dates"):
        backtest(bank.lake, registry, bank.platform.engine, usecase, bank.days[0], last)
    with pytest.raises(LookupError, match="no decision from 2027-01-01 to 2027-01-31 with a known outcome"):
        backtest(bank.lake, registry, bank.platform.engine, usecase, date(2027, 1, 1), date(2027, 1, 31))


def test_what_people_had_said_before_a_decision_is_a_slice_of_the_gate(bank):
    """Guards that what was said after a decision, when its outcome may be known, divides nothing."""
    registry, usecase, engine = bank.platform.registry, bank.usecase, bank.platform.engine
    day = bank.days[-1]
    before, _ = compare_models(bank.lake, registry, engine, usecase, day)
    assert set(before.window.slices["feedback"]) == {NOTHING_SAID}
    told = {}
    for row, (later, what, value, word) in enumerate(
        (
            (timedelta(hours=-1), "acted", "PAYER", ACTED_ON),
            (timedelta(hours=-1), "judged", OTHER, REASON_CORRECTED),
            (timedelta(hours=-1), "judged", "PAYER", REASON_RIGHT),
            (timedelta(), "acted", "PAYER", ACTED_ON),
            (timedelta(microseconds=1), "acted", "PAYER", NOTHING_SAID),
            (timedelta(hours=-1), "noted", None, NOTHING_SAID),
        )
    ):
        entity = str(before.window.entity_ids[row])
        at = before.window.decision_times[row].astype("datetime64[us]").item().replace(tzinfo=UTC) + later
        shown = Shown(
            decision_time=at - timedelta(days=1), priority=1, probability=0.5, expected_cost=1.0, cause="PAYER",
            model_version=1, mlflow_run_id="run", cut_off_at=at + timedelta(days=1),
        )  # fmt: skip
        said = Said(entity_id=entity, what=what, actor="ana", request_key=f"form {row}", value=value, note="a note")
        outcome = before.window.outcome_dates[row].astype("datetime64[D]").item()
        assert write_feedback(
            engine, usecase.name, outcome, [(said, shown)], now=at, lease_length=timedelta(1), causes=["PAYER"]
        ).saved
        told[entity] = word
    after, run_ids = compare_models(bank.lake, registry, engine, usecase, day)
    found = dict(zip(map(str, after.window.entity_ids), after.window.slices["feedback"], strict=True))
    assert {entity: found[entity] for entity in told} == told
    assert {found[entity] for entity in found.keys() - told.keys()} == {NOTHING_SAID}
    models = {name: read_model_evidence(registry, run_id) for name, run_id in run_ids.items()}
    evidence = build_evidence(
        usecase.gate, after, models, challenger="logistic", rule=usecase.rule.name, champion=CHAMPION, seed=1
    )
    parts = {part.value: part.n for part in evidence.slices if part.slice == "feedback"}
    assert parts == {ACTED_ON: 2, REASON_CORRECTED: 1, REASON_RIGHT: 1, NOTHING_SAID: len(found) - 4}
    (condition,) = [one for one in judge(usecase.gate, evidence).conditions if one.name == "slice_feedback"]
    assert condition.passed
    assert "is nothing said" in condition.why or condition.value == "none with 100 fails"


def test_predictions_are_those_of_the_champion_and_say_so(bank):
    champion = bank.platform.registry.resolve(bank.usecase.name, CHAMPION)
    rows = bank.lake.read(predictions_table(bank.usecase))
    assert rows.num_rows == 2 * 60
    assert rows["model_version"].unique().to_pylist() == [champion.version]
    assert rows["mlflow_run_id"].unique().to_pylist() == [champion.run_id]
    listed = work_list(
        bank.platform.engine, bank.usecase.name, next_outcome_date(bank.platform.engine, bank.usecase.name), 5
    )
    costs = [row["expected_cost"] for row in listed]
    assert len(costs) == 5
    assert costs == sorted(costs, reverse=True)


def test_what_a_scoring_finds_open_no_more_leaves_the_work_list(bank):
    """Guards that a slot's declaration reaches the list that people read, and that a part removes nobody from it."""
    engine, last = bank.platform.engine, bank.days[-1]
    outcome = late_payments.CALENDAR.next(last)  # decided on the day before, two business days ahead
    listed = work_list(engine, bank.usecase.name, outcome, 1000)
    assert len(listed) == 60
    slots = tuple(dataclasses.replace(slot, days_before=1) for slot in bank.usecase.slots)
    settling = dataclasses.replace(bank.usecase, slots=slots)
    origin = RunOrigin("a test", "a test")
    report = score_dates(bank.lake, bank.platform.registry, engine, settling, [last], origin)
    assert report.left == 60
    assert work_list(engine, bank.usecase.name, outcome, 1000) == []
    assert report.upserted.unchanged == 60, "its own list is of a later outcome date"
    report = score_dates(bank.lake, bank.platform.registry, engine, bank.usecase, [last], origin)
    assert report.left == 0
    assert work_list(engine, bank.usecase.name, outcome, 1000) == listed


def test_making_everything_again_changes_no_row(bank):
    """Guards: runs retry, sensors ask twice, people backfill; nothing may double or drift."""
    before = content(bank)
    bank.runs.run("ingest", bank.days)
    bank.runs.run("ingest", bank.days[3:4])
    bank.runs.run("score", bank.days[-2:])
    after = content(bank)
    assert {name for name in before if before[name] != after[name]} == set()


def test_retraining_judges_the_new_challenger_against_the_champion(bank):
    bank.runs.run("retrain", [bank.days[-1]])
    evaluated = bank.latest("evaluation")
    assert "| champion |" in evaluated["ranking"]
    assert "| country | DE |" in evaluated["slices"]
    verdict = bank.latest("verdict")
    assert verdict["passed"] is True
    for condition in ("pr_auc_against_champion", "gain_over_champion_low", "slice_country", "score_psi"):
        assert f"| {condition} | yes |" in verdict["gate"]
    assert "| champion_of_now | yes |" in bank.latest("champion")["gate"]


def test_a_retraining_learns_from_the_dates_since_a_change_alone(make_bank):
    """Guards a retraining out of turn that could help nobody: what is new was its test window, not what it learned."""
    bank = make_bank("changed")
    bank.runs.run("ingest", bank.days)
    bank.runs.run("retrain", [bank.days[-1]])
    change = bank.days[-14]
    bank.runs.run("retrain", [bank.days[-1]], ops=since_change(bank.usecase, change.isoformat())["ops"])
    made = bank.latest("training_set")
    assert made["learns from the dates since"] == change.isoformat()
    assert made["fewer dates than asked"] == "no", "all dates train that are known before the test"
    rows = read_training_set(bank.lake, bank.usecase, bank.days[-1])
    assert min(rows["decision_date"].to_pylist()) == change
    dates = {part: len(set(part_of(rows, part)["decision_date"].to_pylist())) for part in PARTS}
    assert dates["train"] >= 3
    assert (dates["calibration"], dates["test"]) == (1, 3)
    registry, usecase = bank.platform.registry, bank.usecase
    _, run = evaluated_challenger(registry, usecase, bank.days[-1])
    assert run.params["learned_since"] == change.isoformat()
    assert read_evidence(registry, usecase, run.run_id)[0].since == change
    version = registry.register(usecase.name, run.run_id, tags={}).version
    assert reproduce(bank.lake, registry, usecase, version, code_version="now", threads=1).same
    with pytest.raises(RunFailedError, match=f"of the decision dates since {bank.days[-3]} alone: no labelled"):
        bank.runs.run("retrain", [bank.days[-1]], ops=since_change(usecase, bank.days[-3].isoformat())["ops"])


def test_training_too_early_says_how_many_dates_are_missing(bank):
    with pytest.raises(RunFailedError, match="more dates"):
        bank.runs.run("retrain", [bank.days[4]])


def test_a_label_is_not_judged_before_its_events_have_landed(bank):
    """Guards: an outcome judged on data that ends too early would call every trade a fail."""
    ahead = bank.usecase.calendar.add(bank.days[-1], 2)
    bank.runs.run("ingest", [ahead])
    made = bank.latest("labels")
    assert made["dagster/row_count"] == 0
    assert made["outcomes that have not landed yet"] == str(bank.usecase.calendar.previous(ahead))


def test_scoring_without_a_champion_says_what_to_do(make_bank):
    other = make_bank("no_champion")
    other.runs.run("ingest", other.days[:2])
    with pytest.raises(RunFailedError, match="has no champion to score with; run its retraining job"):
        other.runs.run("score", [other.days[1]])


@pytest.fixture(scope="module")
def contested(make_bank) -> Bank:
    """A bank with a champion of its own, for tests that move its aliases."""
    other = make_bank("contested")
    other.runs.run("ingest", other.days)
    other.runs.run("retrain", [other.days[-1]])
    return other


def test_promotion_without_evidence_is_refused(contested):
    """Guards: a later run of the champion alone must not slip past a comparison that was never made."""
    other = contested
    registry, name = other.platform.registry, other.usecase.name
    untested = next(
        run.run_id
        for run in registry.candidate_runs(name, other.days[-1]).values()
        if run.run_id != registry.resolve(name, CHALLENGER).run_id
    )
    before = registry.resolve(name, CHAMPION)
    registry.register(name, untested, tags={})
    definitions = other.runs.definitions
    result = definitions.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=other.instance, asset_selection=[dg.AssetKey([name, "champion"])], raise_on_error=False
    )
    assert not result.success
    assert registry.resolve(name, CHAMPION) == before
    with pytest.raises(FileNotFoundError):
        registry.read_evidence(untested, EVIDENCE)


def follow(bank: Bank, run_id: str) -> None:
    """Let a person promote the model of a run in the ledger, past all that the lifecycle asks."""
    registry, name = bank.platform.registry, bank.usecase.name
    version = registry.register(name, run_id, tags={})
    model = ModelIdentity(version.version, run_id, registry.stored_hash(run_id), "e" * 64)
    with writing(bank.platform.engine, name) as ledger:
        for action in ("registered", "promoted"):
            record(ledger, name, action, model=model, actor=Actor.person("ann"), reason="for the test")
    registry.promote(name, version.version)


def test_evidence_against_a_champion_that_was_followed_is_refused(contested):
    """Guards: a challenger that was compared before another was promoted must be compared again."""
    other = contested
    registry, name = other.platform.registry, other.usecase.name
    champion, rule = registry.resolve(name, CHAMPION), other.usecase.rule.name
    run_ids = {c: run.run_id for c, run in registry.candidate_runs(name, other.days[-1]).items()}
    chosen = next(c for c, run_id in run_ids.items() if run_id == champion.run_id)
    follow(other, run_ids[rule if chosen != rule else "logistic"])
    verdict = judge_run(registry, other.platform.engine, other.usecase, champion.run_id)
    assert [c.name for c in verdict.failures] == ["champion_of_now"]
    evidence = registry.read_evidence(champion.run_id, EVIDENCE)
    copied = run_ids[rule if chosen != rule else "logistic"]
    registry.write_evidence(copied, EVIDENCE, evidence)
    with pytest.raises(LookupError, match="is of another run"):
        judge_run(registry, other.platform.engine, other.usecase, copied)


def test_too_many_bad_rows_stop_the_run_before_features(make_bank):
    other = make_bank("dirty")
    day = other.days[0]
    bad = [
        message(
            "dirty_invoices",
            at(day, minutes),
            event_id=f"bad-{minutes}",
            invoice_id=f"bad-{minutes}",
            payer="P1",
            amount=-1.0,
            due_date=day,
        )
        for minutes in range(40)
    ]
    other.land(bad)
    with pytest.raises(RunFailedError, match="quarantine_rate"):
        other.runs.run("ingest", [day])
    rows = other.lake.read(quarantine_table(other.usecase, other.usecase.event("invoices")))
    assert rows["reason"].unique().to_pylist() == ["amount is not positive"]
    assert other.lake.version(features_table(other.usecase)) is None
    kept = other.lake.read(curated_table(other.usecase, other.usecase.event("invoices")))
    assert kept.num_rows == 60


def test_a_sensor_without_a_cursor_asks_only_for_what_was_never_ingested(make_bank):
    """Guards: a new or reset sensor asked for all of history again, hours of runs on a real lake."""
    other = make_bank("reset")
    other.runs.run("ingest", other.days)
    sensor = landed_data_sensor(other.usecase)

    def look() -> list[str | None]:
        with dg.build_sensor_context(
            instance=other.instance, definitions=other.runs.definitions, resources={"platform": other.platform}
        ) as context:
            result = sensor.evaluate_tick(context)
        return [request.partition_key for request in result.run_requests or []]

    assert look() == []
    late = message(
        "reset_invoices", at(other.days[3], 0), event_id="late", invoice_id="late", payer="P1", amount=1.0,
        due_date=other.days[5],
    )  # fmt: skip
    other.land([late._replace(timestamp_ms=int(at(other.days[-1], 0).timestamp() * 1000))])
    assert str(other.days[3]) in look()


def test_features_ask_for_their_scores_once_there_is_a_champion(bank):
    """The automation that scores: exactly the dates of which features have been made."""
    definitions = bank.runs.definitions
    selection = dg.AssetSelection.assets(dg.AssetKey([bank.usecase.name, "predictions"]))

    def evaluate(cursor=None):
        return dg.evaluate_automation_conditions(definitions, bank.instance, asset_selection=selection, cursor=cursor)

    first = evaluate()
    bank.runs.run("ingest", [bank.days[-2]])
    second = evaluate(first.cursor)
    predictions = dg.AssetKey([bank.usecase.name, "predictions"])
    assert second.get_requested_partitions(predictions) == {str(bank.days[-2])}
    assert evaluate(second.cursor).total_requested == 0


def at(day: date, minutes: int) -> datetime:
    return datetime.combine(day, time(11), tzinfo=UTC) + timedelta(minutes=minutes)


def test_a_model_comes_with_its_model_risk_pack(bank):
    """Every number that the evaluation measured, every condition, every table version: for the reviewer."""
    registry = bank.platform.registry
    challenger = registry.resolve(bank.usecase.name, CHALLENGER)
    said = registry.read_evidence(challenger.run_id, "model_risk_pack.md")
    page = registry.read_evidence(challenger.run_id, "model_risk_pack.html")
    evidence = read_evidence(registry, bank.usecase, challenger.run_id)[0]
    for metric in evidence.challenger.metrics:
        assert metric.removesuffix("_low").removesuffix("_high") in said, metric
    for condition in judge_now(registry, bank.platform.engine, bank.usecase, evidence).conditions:
        if condition.name not in {"champion", "champion_of_now"}:  # who is champion has changed since
            assert f"| {condition.name} |" in said
    for feature in bank.usecase.features:
        assert f"| {feature.name} | {feature.description} |" in said
    assert f"| {features_table(bank.usecase)} |" in said
    assert "<h2>8. Slices</h2>" in page
    assert bank.latest("challenger")["model_risk_pack"] == said


def test_a_model_of_which_the_limits_are_not_said_is_not_registered(bank):
    silent = dataclasses.replace(bank.usecase, limits=())
    before = bank.platform.registry.versions(bank.usecase.name)
    with pytest.raises(PackError, match="has nothing to say of limits; the model is not registered"):
        register_challenger(bank.platform.registry, bank.platform.engine, silent, bank.days[-1], Actor.run("4711"))
    assert bank.platform.registry.versions(bank.usecase.name) == before


def test_a_prediction_is_walked_back_to_its_offsets_and_made_again(bank):
    (row,) = work_list(
        bank.platform.engine, bank.usecase.name, next_outcome_date(bank.platform.engine, bank.usecase.name), 1
    )
    found = explain_prediction(
        bank.lake, bank.platform.registry, bank.platform.engine, bank.usecase, row["entity_id"], threads=1
    )
    assert found.prediction["probability"] == row["probability"]
    assert found.reproduced
    assert found.run.run_id in printed(found)
    assert found.differing == []
    assert found.run.tags["candidate"]
    assert found.promotion.to_version == row["model_version"]
    assert set(found.curated_versions) == {
        *(curated_table(bank.usecase, event) for event in bank.usecase.events),
        *(reference_table(bank.usecase, reference) for reference in bank.usecase.references),
    }
    landed = bank.lake.read(landing_table(bank.usecase.event("invoices").topic)).to_pylist()
    (invoice,) = (source for source in found.sources if source.event == "invoices")
    at = {(e["kafka_partition"], e["kafka_offset"]): e for e in landed if e["invoice_id"] == row["entity_id"]}
    assert at[invoice.kafka_partition, invoice.kafka_offset]["event_id"] == invoice.event_id


def test_a_prediction_is_made_again_from_what_it_was_made_from_after_a_repair_and_housekeeping(bank):
    """Guards versions that were guessed from commit times, and that housekeeping took away after a week."""
    engine, name = bank.platform.engine, bank.usecase.name
    (row,) = work_list(engine, name, next_outcome_date(engine, name), 1)
    table = curated_table(bank.usecase, bank.usecase.event("invoices"))
    rows = bank.lake.read(table)
    names_it = pc.equal(rows["invoice_id"], row["entity_id"])
    (day,) = rows.filter(names_it)["business_date"].to_pylist()
    of_day = rows.filter(pc.equal(rows["business_date"], day))
    bank.lake.replace(
        table, of_day.filter(pc.not_equal(of_day["invoice_id"], row["entity_id"])), "business_date", [day]
    )
    try:
        maintain_lake(bank.lake, bank.platform.registry, engine, [bank.usecase], keep_hours=0)
        found = explain_prediction(bank.lake, bank.platform.registry, engine, bank.usecase, row["entity_id"], threads=1)
        assert found.reproduced
        assert found.curated_versions[table] < bank.lake.version(table)
        assert "invoices" in {source.event for source in found.sources}
    finally:
        bank.lake.replace(table, of_day, "business_date", [day])


def test_the_desk_shows_its_events_and_computes_it_again(bank):
    """Of a use case that says nothing of the desk, too: all attributes are columns, and any action is a note."""
    engine, name = bank.platform.engine, bank.usecase.name
    day = next_outcome_date(engine, name)
    (row,) = work_list(engine, name, day, 1)
    desk = Desk(
        bank.platform, [bank.usecase], clock=lambda: row["decision_time"], door=by_login("ana"), forms=Forms(b"secret"),
        every_seconds=1e9,
    )  # fmt: skip
    ana = TestClient(build_app(desk), base_url="http://localhost", client=("127.0.0.1", 1))
    path = f"/{name}/{day}"
    assert row["entity_id"] in ana.get(path).text
    asked = f"?entity={row['entity_id']}"
    assert "made champion by" in ana.get(f"{path}/row{asked}").text
    events = ana.get(f"{path}/events{asked}&part=1").text
    assert "<td>invoices</td>" in events
    assert "Computed again from its events: the same number" in ana.get(f"{path}/trace{asked}").text


def test_a_prediction_that_was_tampered_with_is_not_made_again(bank):
    """Guards: the walk back shows what is in the database, but believes only what it makes again."""
    engine, name = bank.platform.engine, bank.usecase.name
    (row,) = work_list(engine, name, next_outcome_date(engine, name), 1)
    key = {"entity_id": row["entity_id"], "decision_time": row["decision_time"], "name": name}
    change = text(
        "UPDATE predictions SET probability = probability + :by WHERE use_case = :name AND entity_id = :entity_id "
        "AND decision_time = :decision_time"
    )
    with engine.begin() as connection:
        connection.execute(change, {**key, "by": 1e-6})
    try:
        found = explain_prediction(bank.lake, bank.platform.registry, engine, bank.usecase, row["entity_id"])
        assert not found.reproduced
    finally:
        with engine.begin() as connection:
            connection.execute(
                text(
                    "UPDATE predictions SET probability = :was WHERE use_case = :name AND entity_id = :entity_id "
                    "AND decision_time = :decision_time"
                ),
                {**key, "was": row["probability"]},
            )
    with pytest.raises(LookupError, match="has no prediction of 'nobody'"):
        explain_prediction(bank.lake, bank.platform.registry, engine, bank.usecase, "nobody")


@pytest.fixture(scope="module")
def answered(bank, tmp_path_factory):
    """What the scoring service answered for one open decision, recorded and landed, by the name of what was asked."""
    home = tmp_path_factory.mktemp("answered")

    def fetch(run: str, expected: str) -> ModelFiles:
        golden = home / f"{run}.json"
        golden.write_text(bank.platform.registry.read_evidence(run, GOLDEN_SAMPLE))
        return ModelFiles(bank.platform.registry.download_model(run, expected), golden)

    now = datetime.combine(bank.days[-1], time(11), tzinfo=UTC)
    scoring = Scoring(bank.lake, lambda: bank.platform.engine, [bank.usecase], fetch, clock=lambda: now)
    scoring.look_at_data()
    scoring.look_at_models()
    state = scoring.state(bank.usecase.name)
    told = max(state.answers, key=lambda one: one["probability"])
    given = {name: told[name] for name in (
        "entity_id", "slot", "decision_time", "outcome_date", "probability", "expected_cost"
    )}  # fmt: skip
    said = ServedScore(
        event_id="answer", event_time=datetime.now(UTC), request_id="asked", use_case=bank.usecase.name,
        model_version=state.model.version, mlflow_run_id=state.model.run_id, stage="champion",
        feature_set_hash=bank.usecase.feature_set_hash, what_if=False, stale=False, latency_ms=1.0, **given,
    )  # fmt: skip
    changed = {"stage": "shadow", "event_id": "of the shadow", "probability": 0.5}
    events = [said, *(msgspec.structs.replace(said, **each) for each in (
        changed,
        {"event_id": "wrong", "request_id": "wrong", "probability": said.probability + 1e-6},
        {"event_id": "what if", "request_id": "what if", "what_if": True},
    ))]  # fmt: skip
    ensure_topics(bank.kafka, [SERVED_SCORES.topic])
    recorder = Recorder(bank.kafka, idempotent=False)
    recorder.start()
    for event in events:
        recorder.record(SERVED_SCORES.topic, event.entity_id, event)
    assert recorder.close(20) == 0
    Lander(bank.lake, [SERVED_SCORES], bank.kafka).land_available()
    return said


def explain(bank, answered, answer):
    of = bank.platform
    return explain_answer(bank.lake, of.registry, of.engine, bank.usecase, answered.entity_id, answer, threads=1)


@pytest.mark.parametrize("by", ["request_id", "event_id"])
def test_an_answer_of_the_service_is_walked_back_and_made_again(bank, answered, by):
    """Guards the reviewer of an online score: from the events alone, as of its time, the same number."""
    found = explain(bank, answered, getattr(answered, by))
    assert found.prediction["event_id"] == answered.event_id, "what the caller was told, not what a shadow thought"
    assert found.reproduced
    assert found.probability_anew == pytest.approx(answered.probability, abs=1e-9)
    assert found.promotion.to_version == answered.model_version
    assert found.features is None
    assert found.features_again
    assert "invoices" in {source.event for source in found.sources}
    assert max(source.known_at for source in found.sources) <= answered.decision_time
    said = printed(found)
    for fact in ("as champion in 1.0 ms", "asked", answered.mlflow_run_id, answered.feature_set_hash, "reproduced"):
        assert fact in said, fact


def test_an_answer_by_a_slot_that_is_gone_says_so(bank, answered):
    """Guards a StopIteration in the walk back from an answer, after a use case has renamed its slots."""
    of = bank.platform
    renamed = dataclasses.replace(
        bank.usecase, slots=tuple(dataclasses.replace(one, name=f"new_{one.name}") for one in bank.usecase.slots)
    )
    with pytest.raises(NotFoundError, match=r"has no slot .* any more"):
        explain_answer(of.lake, of.registry, of.engine, renamed, answered.entity_id, answered.event_id, threads=1)


def test_an_answer_is_joined_to_outcomes_as_one_prediction_of_the_stage_online(bank, answered):
    """Guards performance that knows the batch alone: what-ifs, shadows and earlier answers are not counted."""
    join_live_outcomes(bank.lake, bank.platform.engine, bank.usecase, [bank.days[-1]])
    rows = bank.lake.read(outcomes_table(bank.usecase))
    online = [row for row in rows.to_pylist() if row["stage"] == ONLINE]
    batch = {row["entity_id"]: row for row in rows.to_pylist() if row["stage"] == "batch"}
    assert [row["entity_id"] for row in online] == [answered.entity_id]
    (row,) = online
    assert row["probability"] == pytest.approx(answered.probability, abs=1e-5)
    assert (row["decision_time"], row["decision_date"]) == (answered.decision_time, bank.days[-1])
    assert row["is_last"]
    if same := batch.get(answered.entity_id):
        assert row["cost_if_fail"] == same["cost_if_fail"]


def printed(found):
    page = StringIO()
    print_lineage(Console(file=page, width=400), found)
    return page.getvalue()


def test_an_answer_that_was_tampered_with_is_not_made_again(bank, answered):
    found = explain(bank, answered, "wrong")
    assert not found.reproduced
    assert f"the service said {answered.probability + 1e-6:.9f}, the saved model gives" in not_made_again(found)


def test_an_answer_that_cannot_be_made_again_says_why(bank, answered):
    with pytest.raises(StateError, match="was a what-if"):
        explain(bank, answered, "what if")
    with pytest.raises(LookupError, match="an answer lands seconds after it was given"):
        explain(bank, answered, "never given")
