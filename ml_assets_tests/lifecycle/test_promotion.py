"""Promotion, approval and rollback, on a real MLflow registry and a real ledger. The gate has tests of its own."""

import dataclasses
import signal
from datetime import date
from pathlib import Path
from time import perf_counter
from types import SimpleNamespace

import pytest

from ml_assets.database.connect import begin, connect
from ml_assets.database.promotions import Actor, LedgerError, history, running_canary, take_back
from ml_assets.learning.gate import Condition, Evidence, ModelEvidence, Verdict
from ml_assets.lifecycle import canary, promotion
from ml_assets.lifecycle.canary import end_canary, start_canary
from ml_assets.lifecycle.champion import ChampionError, StrayAliasError, settle
from ml_assets.lifecycle.evaluation import EVIDENCE, read_evidence
from ml_assets.lifecycle.overview import overview
from ml_assets.lifecycle.promotion import agreement, approve, promote_challenger, roll_back
from ml_assets.lifecycle.registration import enter
from ml_assets.registry import CHAMPION, Lineage, ModelChangedError, ModelRegistry
from ml_assets_tests import late_payments
from ml_assets_tests.lifecycle.killed import exit_code_of

pytestmark = pytest.mark.long

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


def evidence_of(registry: ModelRegistry, run_id: str, window: str) -> str:
    challenger = ModelEvidence(name="logistic", run_id=run_id)
    return Evidence(
        window_hash=window,
        window_first_decision=None,
        challenger=challenger,
        rule=None,
        champion_exists=None,
        model_hash=registry.stored_hash(run_id),
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
    monkeypatch.setattr(canary, "judge", judged)
    bank = SimpleNamespace(registry=registry, url=application_url, low=usecase, gate=gate)
    bank.high = dataclasses.replace(usecase, tier="high")

    def register(*, evidence: bool = True) -> int:
        lineage = Lineage("abc", "run", "f00", {"features/x": 7}, DAY, DAY, DAY, DAY, "beef")
        run_id = registry.log_candidate(
            usecase.name, "logistic", training_date=DAY, params={}, metrics={"pr_auc": 0.4}, plots={}, tables={},
            model_folder=model_folder, lineage=lineage,
        )  # fmt: skip
        if evidence:
            registry.write_evidence(run_id, EVIDENCE, evidence_of(registry, run_id, "beef"))
        version = registry.register(usecase.name, run_id, tags={})
        if evidence:
            enter(registry, application_url, usecase, version, RUN)
        return version.version

    bank.register = register
    bank.promote = lambda usecase, actor=RUN, **said: promote_challenger(
        registry, application_url, usecase, actor, **said
    )
    bank.champion = lambda: registry.resolve(usecase.name, CHAMPION)
    bank.lines = lambda: [
        (e.action, e.from_version, e.to_version, e.actor)
        for e in history(bank.url, usecase.name)
        if e.action != "registered"
    ]
    return bank


def test_a_version_that_was_promoted_is_champion_and_no_challenger(bank, lake):
    """Guards a status that named one version as both."""
    engine = connect(bank.url)

    def said() -> tuple[int | None, int | None]:
        found = overview(lake, bank.registry, engine, bank.low)
        return found.champion.to_version if found.champion else None, found.challenger

    first = bank.register()
    assert said() == (None, first)
    bank.promote(bank.low)
    assert said() == (first, None)
    second = bank.register()
    assert said() == (first, second)
    engine.dispose()


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
    bank.registry.write_evidence(run_id, EVIDENCE, evidence_of(bank.registry, run_id, "another window"))
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
    """Guards: MLflow's UI lets anybody move an alias; scoring followed without a trace."""
    for _ in range(2):
        bank.register()
        bank.promote(bank.low)
    bank.register()
    bank.registry.promote(bank.low.name, 3)
    found = agreement(bank.registry, bank.url, bank.low)
    assert not found.agrees
    assert str(found) == "the alias champion is version 3, the ledger says version 2"
    for act in (bank.promote, lambda usecase: settle(bank.registry, bank.url, usecase)):
        with pytest.raises(StrayAliasError, match="somebody has moved one without the other"):
            act(bank.low)
    entry = roll_back(bank.registry, bank.url, bank.low, ANN, reason="moved by hand")
    assert (entry.action, bank.champion().version) == ("restored", 2)


def test_an_alias_that_nobody_approved_is_taken_away(bank):
    """Guards the first champion: rollback said that there was none to roll back, and scoring used it."""
    bank.register()
    bank.registry.promote(bank.low.name, 1)
    with pytest.raises(StrayAliasError, match="takes the alias away"):
        settle(bank.registry, bank.url, bank.low)
    assert roll_back(bank.registry, bank.url, bank.low, ANN, reason="moved by hand") is None
    assert bank.champion() is None
    assert bank.promote(bank.low).outcome == "promoted"


def test_a_deleted_registered_model_does_not_make_a_stranger_champion(bank):
    """Guards identity: versions count from 1 again, and a rollback to version 1 promoted another model."""
    bank.register()
    bank.promote(bank.low)
    approved = bank.champion().run_id
    bank.registry._client.delete_registered_model(bank.low.name)
    bank.register()
    assert bank.registry.version(bank.low.name, 1).run_id != approved
    with pytest.raises(ChampionError, match="registers the same model again"):
        settle(bank.registry, bank.url, bank.low)
    assert roll_back(bank.registry, bank.url, bank.low, ANN, reason="deleted by mistake").action == "restored"
    assert bank.champion().run_id == approved
    assert settle(bank.registry, bank.url, bank.low).version.version == 2


def test_a_deleted_champion_comes_back_by_a_rollback(bank):
    """Guards the way out: rollback, rollback to the version and approve each sent to the other."""
    bank.register()
    bank.promote(bank.low)
    bank.registry._client.delete_model_version(bank.low.name, "1")
    assert roll_back(bank.registry, bank.url, bank.low, ANN, reason="deleted by mistake").action == "restored"
    assert settle(bank.registry, bank.url, bank.low) is not None


def test_a_model_that_was_swapped_is_neither_promoted_nor_approved_nor_loaded(bank):
    """Guards: another candidate's files in the artifact store were approved, and scored as `version 1, approved`."""
    bank.register()
    made = bank.promote(bank.high)
    run = bank.registry._client.get_run(made.challenger.run_id)
    manifest = Path(run.info.artifact_uri.removeprefix("file://")) / "model" / "manifest.json"
    before = manifest.read_text()
    manifest.write_text('{"classes": [1, 0]}')
    for act in (
        lambda: approve(bank.registry, bank.url, bank.high, BOB, reason="fine"),
        lambda: bank.promote(bank.high),
        lambda: bank.registry.download_model(made.challenger.run_id, made.entry.model_hash),
    ):
        with pytest.raises(ModelChangedError, match=r"manifest\.json differ"):
            act()
    manifest.write_text(before)
    assert approve(bank.registry, bank.url, bank.high, BOB, reason="fine").action == "promoted"


def test_a_champion_from_before_hashes_is_confirmed_by_a_person(bank):
    """Guards deployments that upgrade: their champion's line names neither run nor hash."""
    bank.register()
    version = bank.registry.version(bank.low.name, 1)
    evidence = read_evidence(bank.registry, bank.low, version.run_id)[1]
    with begin(bank.url) as connection:
        connection.exec_driver_sql("ALTER TABLE promotions DISABLE TRIGGER promotions_judged")
        connection.exec_driver_sql(
            "INSERT INTO promotions (use_case, action, to_version, actor, is_person, needs_approval, reason, "
            f"evidence_hash) VALUES ('{bank.low.name}', 'promoted', 1, 'run', false, false, 'x', '{evidence}')"
        )
        connection.exec_driver_sql("ALTER TABLE promotions ENABLE TRIGGER promotions_judged")
    bank.registry.promote(bank.low.name, 1)
    with pytest.raises(ChampionError, match=r"rollback .* --to 1"):
        settle(bank.registry, bank.url, bank.low)
    entry = roll_back(bank.registry, bank.url, bank.low, ANN, reason="looked at it", to_version=1)
    assert (entry.action, entry.mlflow_run_id) == ("restored", version.run_id)
    assert settle(bank.registry, bank.url, bank.low).version == bank.champion()


def test_a_canary_is_a_version_that_passed_the_gate_beside_the_champion(bank):
    bank.register()
    said = (bank.registry, bank.url, bank.low, ANN)
    with pytest.raises(LookupError, match="has no champion"):
        start_canary(*said, share=0.1)
    bank.promote(bank.low)
    with pytest.raises(RuntimeError, match="version 1 is champion"):
        start_canary(*said, share=0.1)
    bank.register()
    bank.gate["passes"] = False
    assert start_canary(*said, share=0.1).outcome == "refused"
    bank.gate["passes"] = True
    with pytest.raises(ValueError, match="between 0 and 1"):
        start_canary(*said, share=1.0)
    assert start_canary(*said, share=0.1, version=2).entry.percent == "10 %"
    assert bank.champion().version == 1
    assert end_canary(bank.url, bank.low, BOB, reason="seen enough").to_version == 2
    with pytest.raises(LookupError, match="no canary runs"):
        end_canary(bank.url, bank.low, BOB, reason="seen enough")
    assert [line[:3] for line in bank.lines()] == [("canary_ended", 1, 2), ("canary", 1, 2), ("promoted", None, 1)]


def test_a_run_does_not_promote_what_the_guard_took_back(bank):
    """Guards the night: the gate still passes, and the run would give everybody what a tenth was spared."""
    bank.register()
    bank.promote(bank.low)
    bank.register()
    made = start_canary(bank.registry, bank.url, bank.low, ANN, share=0.1)
    assert take_back(bank.url, made.entry, "PSI 0.9, limit 0.5")
    refused = bank.promote(bank.low)
    assert (refused.outcome, "was taken back" in refused.why) == ("refused", True)
    assert bank.promote(bank.low, ANN, override="the feed was down").outcome == "promoted"


def test_in_the_high_tier_another_person_starts_the_canary(bank):
    bank.register()
    bank.promote(bank.high)
    approve(bank.registry, bank.url, bank.high, BOB, reason="fine")
    bank.register()
    for_promotion = bank.promote(bank.high, ANN).entry
    made = start_canary(bank.registry, bank.url, bank.high, ANN, share=0.1)
    assert (made.outcome, made.entry.id > for_promotion.id) == ("awaiting approval", True)
    with pytest.raises(LedgerError, match="another person"):
        approve(bank.registry, bank.url, bank.high, ANN, reason="fine")
    entry = approve(bank.registry, bank.url, bank.high, BOB, reason="fine")
    assert (entry.action, entry.share, bank.champion().version) == ("canary", 0.1, 1)
    assert bank.promote(bank.high, ANN).entry.share is None, "a canary is no promotion: that is asked for anew"
    approve(bank.registry, bank.url, bank.high, BOB, reason="it did well")
    assert (bank.champion().version, running_canary(bank.url, bank.high.name)) == (2, None)


STEPS = ("before_ledger", "after_ledger", "before_alias", "after_alias")


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("act", ["promote_challenger", "approve", "roll_back"])
def test_whoever_comes_after_a_kill_finds_a_way_on(bank, act, step, postgres_server, tmp_path):
    """Guards: SIGKILL between alias and ledger left a model that scored unapproved, and no command that worked."""
    tier = "high" if act == "approve" else "low"
    usecase = bank.high if act == "approve" else bank.low
    bank.register()
    if act == "approve":
        bank.promote(usecase)
    if act == "roll_back":
        bank.promote(usecase)
        bank.register()
        bank.promote(usecase)
    root = tmp_path / "killed"
    package = late_payments.make_package(root, "killed_case")
    told = {
        "package_root": str(root), "package": package, "usecase": usecase.name, "tier": tier, "act": act,
        "mlflow": postgres_server.url("promotion", "psycopg2"), "artifacts": "unused", "url": bank.url, "step": step,
        "actor": ["bob", True], "said": {} if act == "promote_challenger" else {"reason": "said"},
    }  # fmt: skip
    assert exit_code_of(told) == -signal.SIGKILL
    found = settle(bank.registry, bank.url, usecase)
    decided = step != "before_ledger"
    before = 2 if act == "roll_back" else None
    assert (found.version.version if found else None) == (1 if decided else before)
    assert agreement(bank.registry, bank.url, usecase).agrees
    if not decided:
        again = {
            "promote_challenger": lambda: bank.promote(usecase),
            "approve": lambda: approve(bank.registry, bank.url, usecase, BOB, reason="again"),
            "roll_back": lambda: roll_back(bank.registry, bank.url, usecase, BOB, reason="again"),
        }[act]
        assert again() is not None
        assert bank.champion().version == 1


def test_an_alias_that_cannot_be_moved_follows_later(bank, monkeypatch):
    """Guards: the ledger has decided; MLflow that was down must not undo it, nor leave a state without a way out."""
    bank.register()

    def broken(*_, **__):
        raise ConnectionError("MLflow is down")

    with monkeypatch.context() as down:
        down.setattr(bank.registry, "promote", broken)
        with pytest.raises(ConnectionError):
            bank.promote(bank.low)
    assert bank.lines() == [("promoted", None, 1, "dagster run 4711")]
    assert settle(bank.registry, bank.url, bank.low).version.version == 1
    assert bank.champion().version == 1
