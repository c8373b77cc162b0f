"""Promotion, approval and rollback, on a real MLflow registry and a real ledger. The gate has tests of its own."""

import dataclasses
from datetime import date
from pathlib import Path
from time import perf_counter
from types import SimpleNamespace

import pytest

from ml_assets.database.promotions import Actor, LedgerError, history
from ml_assets.learning.gate import Condition, Evidence, ModelEvidence, Verdict
from ml_assets.lifecycle import promotion
from ml_assets.lifecycle.evaluation import EVIDENCE
from ml_assets.lifecycle.promotion import agreement, approve, promote_challenger, roll_back
from ml_assets.registry import CHAMPION, Lineage, ModelRegistry
from ml_assets_tests import late_payments

DAY = date(2026, 3, 27)
RUN, ANN, BOB = Actor.run("4711"), Actor.person("ann"), Actor.person("bob")


@pytest.fixture(scope="module")
def registry(postgres_server, tmp_path_factory) -> ModelRegistry:
    postgres_server.create_databases("promotion")
    root = tmp_path_factory.mktemp("promotion")
    return ModelRegistry(postgres_server.url("promotion", "psycopg2"), str(root / "artifacts"))


@pytest.fixture(scope="module")
def low(tmp_path_factory):
    return late_payments.usecase_of(late_payments.make_package(tmp_path_factory.mktemp("promotion"), "promoted_case"))


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory) -> Path:
    import onnx
    from onnx import TensorProto, helper

    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "identity", value[:1], value[1:])
    folder = tmp_path_factory.mktemp("model")
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(folder / "model.onnx")
    )
    (folder / "manifest.json").write_text("{}")
    return folder


def evidence_of(run_id: str, window: str) -> str:
    challenger = ModelEvidence(name="logistic", run_id=run_id)
    return Evidence(
        window_hash=window, window_first_decision=None, challenger=challenger, rule=None, champion_exists=None
    ).to_json()


@pytest.fixture
def bank(request, registry, low, model_folder, application_url, monkeypatch):
    """A use case of the test's own, with a gate that says what the test wants, and a function that registers."""
    usecase = dataclasses.replace(low, name=request.node.name)
    gate = {"passes": True}

    def judged(*_):
        condition = Condition(name="lift", value=0.1, comparison=">=", threshold=0.2, passed=gate["passes"], why="")
        return Verdict(passed=gate["passes"], conditions=(condition,))

    monkeypatch.setattr(promotion, "judge_now", judged)
    bank = SimpleNamespace(registry=registry, url=application_url, low=usecase, gate=gate)
    bank.high = dataclasses.replace(usecase, tier="high")

    def register(*, evidence: bool = True) -> int:
        lineage = Lineage("abc", "run", "f00", {"features/x": 7}, DAY, DAY, DAY, DAY, "beef")
        run_id = registry.log_candidate(
            usecase.name, "logistic", training_date=DAY, params={}, metrics={"pr_auc": 0.4}, plots={}, tables={},
            model_folder=model_folder, lineage=lineage,
        )  # fmt: skip
        if evidence:
            registry.write_evidence(run_id, EVIDENCE, evidence_of(run_id, "beef"))
        return registry.register(usecase.name, run_id, tags={}).version

    bank.register = register
    bank.promote = lambda usecase, actor=RUN, **said: promote_challenger(
        registry, application_url, usecase, actor, **said
    )
    bank.champion = lambda: registry.resolve(usecase.name, CHAMPION)
    bank.lines = lambda: [(e.action, e.from_version, e.to_version, e.actor) for e in history(bank.url, usecase.name)]
    return bank


def test_a_run_promotes_and_the_ledger_says_on_what_evidence(bank):
    bank.register()
    made = bank.promote(bank.low)
    assert made.outcome == "promoted"
    assert len(made.entry.evidence_hash) == 64
    assert bank.promote(bank.low).outcome == "champion already"
    assert bank.lines() == [("promoted", None, 1, "dagster run 4711")]
    assert agreement(bank.registry, bank.url, bank.low).agrees


def test_a_challenger_that_fails_the_gate_leaves_no_line(bank):
    bank.register()
    bank.gate["passes"] = False
    assert bank.promote(bank.low).outcome == "refused"
    assert bank.champion() is None
    assert bank.lines() == []
    made = bank.promote(bank.low, ANN, override="the feed was down")
    assert (made.outcome, made.entry.reason) == ("promoted", "against the gate: the feed was down")


def test_without_evidence_there_is_no_promotion(bank):
    bank.register(evidence=False)
    with pytest.raises(LookupError, match=r"there is no evidence\.json"):
        bank.promote(bank.low, ANN, override="I know better")
    assert bank.lines() == []


def test_in_the_high_tier_another_person_completes_the_promotion(bank):
    """Guards four eyes: nobody promotes alone, neither a run nor a person, not even against the gate."""
    bank.register()
    made = bank.promote(bank.high, ANN)
    assert made.outcome == "awaiting approval"
    assert bank.promote(bank.high, ANN).entry == made.entry, "asking again asks nothing new"
    assert bank.champion() is None
    for actor in (ANN, RUN):
        with pytest.raises(LedgerError):
            approve(bank.registry, bank.url, bank.high, actor, reason="fine")
    assert bank.champion() is None
    entry = approve(bank.registry, bank.url, bank.high, BOB, reason="pack reviewed")
    assert (entry.action, entry.request_id) == ("promoted", made.entry.id)
    assert bank.champion().version == 1
    with pytest.raises(LookupError, match="nothing awaits approval"):
        approve(bank.registry, bank.url, bank.high, BOB, reason="again")


def test_a_declined_request_is_closed_and_may_be_asked_again(bank):
    bank.register()
    bank.promote(bank.high)
    assert approve(bank.registry, bank.url, bank.high, BOB, reason="a slice is odd", decline=True).action == "declined"
    with pytest.raises(LookupError, match="nothing awaits approval"):
        approve(bank.registry, bank.url, bank.high, BOB, reason="fine")
    assert bank.champion() is None
    assert bank.promote(bank.high).outcome == "awaiting approval"


def test_evidence_that_changes_after_the_request_is_not_approved(bank):
    """Guards: a request is approved for what was in it, not for what was written over it."""
    bank.register()
    made = bank.promote(bank.high)
    run_id = made.challenger.run_id
    bank.registry.write_evidence(run_id, EVIDENCE, evidence_of(run_id, "another window"))
    with pytest.raises(RuntimeError, match="has changed since"):
        approve(bank.registry, bank.url, bank.high, BOB, reason="fine")
    assert bank.champion() is None


def test_a_rollback_goes_back_step_by_step_in_seconds(bank):
    for _ in range(3):
        bank.register()
        bank.promote(bank.low)
    started = perf_counter()
    roll_back(bank.registry, bank.url, bank.low, ANN, reason="fails were missed")
    assert perf_counter() - started < 5
    assert bank.champion().version == 2
    assert bank.promote(bank.low).outcome == "refused", "a run does not put back what a person has taken away"
    roll_back(bank.registry, bank.url, bank.low, ANN, reason="still")
    assert bank.champion().version == 1
    with pytest.raises(LookupError, match="is the first champion"):
        roll_back(bank.registry, bank.url, bank.low, ANN, reason="further")
    with pytest.raises(LookupError, match="version 9 is no former champion; these are: 2, 3"):
        roll_back(bank.registry, bank.url, bank.low, ANN, reason="x", to_version=9)
    roll_back(bank.registry, bank.url, bank.low, ANN, reason="it was the feed", to_version=3)
    assert bank.champion().version == 3
    assert [line[0] for line in bank.lines()] == ["rolled_back"] * 3 + ["promoted"] * 3
    assert agreement(bank.registry, bank.url, bank.low).agrees


def test_an_alias_moved_by_hand_is_noticed_and_put_back(bank):
    """Guards: MLflow's UI lets anybody move an alias; scoring would follow without a trace."""
    for _ in range(2):
        bank.register()
        bank.promote(bank.low)
    bank.registry.promote(bank.low.name, 1)
    found = agreement(bank.registry, bank.url, bank.low)
    assert not found.agrees
    assert str(found) == "the alias champion is version 1, the ledger says version 2"
    bank.register()
    with pytest.raises(RuntimeError, match="somebody has moved one without the other"):
        bank.promote(bank.low)
    entry = roll_back(bank.registry, bank.url, bank.low, ANN, reason="moved by hand")
    assert (entry.action, bank.champion().version) == ("restored", 2)


def test_an_alias_that_cannot_be_moved_takes_the_line_back(bank, monkeypatch):
    bank.register()

    def broken(*_, **__):
        raise ConnectionError("MLflow is down")

    monkeypatch.setattr(bank.registry, "promote", broken)
    with pytest.raises(ConnectionError):
        bank.promote(bank.low)
    assert bank.lines() == []
