import math
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from ml_assets.learning.gate import Evidence, ModelEvidence, Verdict, judge
from ml_assets.spec import GateSpec

START = datetime(2024, 3, 1, 7, tzinfo=UTC)
GOOD = {"n": 1000.0, "positives": 150.0, "pr_auc": 0.5, "lift": 0.35, "calibration_error": 0.01}
CHALLENGER = ModelEvidence(
    name="lightgbm",
    window_hash="w",
    metrics=GOOD,
    trained_until=START - timedelta(days=1),
    parity_max_abs_difference=1e-7,
)
RULE = msgspec.structs.replace(CHALLENGER, name="rule", metrics=GOOD | {"pr_auc": 0.3})
CHAMPION = msgspec.structs.replace(CHALLENGER, name="champion", metrics=GOOD | {"pr_auc": 0.45})
EVIDENCE = Evidence(
    window_hash="w",
    window_first_decision=START,
    challenger=CHALLENGER,
    rule=RULE,
    champion_exists=True,
    champion=CHAMPION,
)
FIRST = msgspec.structs.replace(EVIDENCE, champion_exists=False, champion=None)


def _with(who: str, **changes: object) -> Evidence:
    return msgspec.structs.replace(EVIDENCE, **{who: msgspec.structs.replace(getattr(EVIDENCE, who), **changes)})


def test_good_evidence_passes() -> None:
    assert judge(GateSpec(), EVIDENCE).passed
    assert judge(GateSpec(), FIRST).passed


@pytest.mark.parametrize(
    ("evidence", "failing"),
    [
        *[
            (_with("challenger", metrics=GOOD | {key: bad}), name)
            for key, name in [
                ("n", "test_rows"),
                ("positives", "test_positives"),
                ("pr_auc", "pr_auc_against_rule"),
                ("pr_auc", "pr_auc_against_champion"),
                ("lift", "lift"),
                ("calibration_error", "calibration_error"),
            ]
            for bad in (math.nan, None, math.inf if key == "calibration_error" else -math.inf)
        ],
        (_with("challenger", metrics={}), "lift"),
        (_with("challenger", metrics=GOOD | {"n": 0.0}), "test_rows"),
        (_with("challenger", metrics=GOOD | {"positives": 99.0}), "test_positives"),
        (_with("challenger", metrics=GOOD | {"calibration_error": 0.06}), "calibration_error"),
        (_with("challenger", metrics=GOOD | {"pr_auc": 0.44}), "pr_auc_against_champion"),
        (_with("challenger", metrics=GOOD | {"pr_auc": 0.29}), "pr_auc_against_rule"),
        (_with("challenger", window_hash="other"), "challenger_window"),
        (_with("challenger", window_hash=None), "challenger_window"),
        (_with("challenger", trained_until=START + timedelta(hours=1)), "challenger_unseen"),
        (_with("challenger", parity_max_abs_difference=2e-6), "export_parity"),
        (_with("challenger", parity_max_abs_difference=None), "export_parity"),
        (_with("challenger", parity_max_abs_difference=math.nan), "export_parity"),
        (_with("rule", metrics={}), "pr_auc_against_rule"),
        (_with("rule", window_hash="other"), "rule_window"),
        (_with("champion", window_hash="other"), "champion_window"),
        (_with("champion", metrics={"pr_auc": math.nan}), "pr_auc_against_champion"),
        (_with("champion", trained_until=None), "champion_unseen"),
        (_with("champion", trained_until=START + timedelta(days=9)), "champion_unseen"),
        (_with("champion", trained_until=START.replace(tzinfo=None)), "champion_unseen"),
        (msgspec.structs.replace(EVIDENCE, challenger=None), "lift"),
        (msgspec.structs.replace(EVIDENCE, rule=None), "pr_auc_against_rule"),
        (msgspec.structs.replace(EVIDENCE, champion=None), "pr_auc_against_champion"),
        (msgspec.structs.replace(EVIDENCE, champion_exists=None, champion=None), "champion_window"),
        (msgspec.structs.replace(EVIDENCE, champion_exists=None), "champion_window"),
        (msgspec.structs.replace(EVIDENCE, champion_exists=False), "champion_window"),
        (msgspec.structs.replace(EVIDENCE, window_first_decision=None), "challenger_unseen"),
        (msgspec.structs.replace(EVIDENCE, window_hash=""), "challenger_window"),
    ],
)
def test_fails_closed(evidence: Evidence, failing: str) -> None:
    """Guards the gate: what is missing, NaN or not comparable is never a pass."""
    verdict = judge(GateSpec(), evidence)
    assert not verdict.passed
    assert failing in {c.name for c in verdict.failures}
    assert all(c.why for c in verdict.conditions)


@pytest.mark.parametrize("evidence", [EVIDENCE, FIRST, _with("challenger", metrics=GOOD | {"lift": math.nan})])
def test_round_trip_gives_the_same_verdict(evidence: Evidence) -> None:
    """Guards replaying a promotion from its stored evidence."""
    verdict = judge(GateSpec(), evidence)
    again = Evidence.from_json(evidence.to_json())
    assert judge(GateSpec(), again) == verdict
    assert Evidence.from_json(again.to_json()) == again
    assert Verdict.from_json(verdict.to_json()) == verdict


def test_gain_is_asked_of_rule_and_champion() -> None:
    verdict = judge(GateSpec(min_gain=0.06), EVIDENCE)
    assert {c.name for c in verdict.failures} == {"pr_auc_against_champion"}
