import math
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import msgspec
import pytest

from ml_assets.learning.gate import (
    Evidence,
    FocusEvidence,
    Gain,
    ModelEvidence,
    ServingEvidence,
    SliceEvidence,
    Standing,
    Verdict,
    judge,
)
from ml_assets.spec import GateSpec, SliceSpec

START = datetime(2024, 3, 1, 7, tzinfo=UTC)
GOOD = {"n": 1000.0, "positives": 150.0, "pr_auc": 0.5, "lift": 0.35, "calibration_error": 0.01, "score_psi": 0.05}
GATE = GateSpec(slices=(SliceSpec("market", "mic", min_positives=50, max_loss=0.05),), floors={"roc_auc": 0.6})
GOOD |= {"roc_auc": 0.8, "saved_per_day": 120.0}
CHALLENGER = ModelEvidence(
    name="lightgbm",
    run_id="challenger's run",
    window_hash="w",
    metrics=GOOD,
    trained_until=START - timedelta(days=1),
    parity_max_abs_difference=1e-7,
)
RULE = msgspec.structs.replace(CHALLENGER, name="rule", metrics=GOOD | {"pr_auc": 0.3})
CHAMPION = msgspec.structs.replace(
    CHALLENGER, name="champion", run_id="champion's run", metrics=GOOD | {"pr_auc": 0.45}
)
GAIN = Gain(metric="pr_auc", value=0.05, low=-0.005, high=0.1, confidence=0.95, resamples=400, days=10)
PART = SliceEvidence(
    slice="market",
    value="XETR",
    n=600,
    positives=100,
    metric="pr_auc",
    challenger=0.5,
    reference=0.52,
    against="champion",
)
SMALL = msgspec.structs.replace(PART, value="XPAR", n=400, positives=49, challenger=0.1)
EVIDENCE = Evidence(
    window_hash="w",
    window_first_decision=START,
    challenger=CHALLENGER,
    rule=RULE,
    champion_exists=True,
    champion=CHAMPION,
    gain_over_rule=msgspec.structs.replace(GAIN, value=0.2, low=0.1, high=0.3),
    gain_over_champion=GAIN,
    slices=(PART, SMALL),
    serving=ServingEvidence(model_hash="h", rows=256, max_abs_difference=1e-8, latency_ms=0.3, load_ms=20.0),
)
FIRST = msgspec.structs.replace(EVIDENCE, champion_exists=False, champion=None, gain_over_champion=None)


def _with(who: str, **changes: object) -> Evidence:
    return msgspec.structs.replace(EVIDENCE, **{who: msgspec.structs.replace(getattr(EVIDENCE, who), **changes)})


def _gain(which: str, **changes: object) -> Evidence:
    return msgspec.structs.replace(EVIDENCE, **{which: msgspec.structs.replace(getattr(EVIDENCE, which), **changes)})


def _parts(*parts: SliceEvidence) -> Evidence:
    return msgspec.structs.replace(EVIDENCE, slices=parts)


def test_good_evidence_passes() -> None:
    assert not judge(GATE, EVIDENCE).failures
    assert not judge(GATE, FIRST).failures
    assert not judge(GATE, EVIDENCE, Standing("champion's run")).failures
    assert not judge(GATE, FIRST, Standing(None)).failures


@pytest.mark.parametrize(
    ("evidence", "standing"),
    [(EVIDENCE, "a later champion's run"), (EVIDENCE, None), (FIRST, "champion's run")],
)
def test_evidence_against_an_earlier_champion_is_none(evidence: Evidence, standing: str | None) -> None:
    """Guards: a challenger compared before another was promoted would have replaced a better model."""
    verdict = judge(GATE, evidence, Standing(standing))
    assert [c.name for c in verdict.failures] == ["champion_of_now"]


def test_the_champion_itself_may_be_judged_again() -> None:
    assert judge(GATE, EVIDENCE, Standing("challenger's run")).passed
    assert judge(GATE, FIRST, Standing("challenger's run")).passed


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
                ("score_psi", "score_psi"),
                ("roc_auc", "floor_roc_auc"),
                ("saved_per_day", "saved_per_day"),
            ]
            for bad in (math.nan, None, math.inf if key in {"calibration_error", "score_psi"} else -math.inf)
        ],
        (_with("challenger", metrics={}), "lift"),
        (_with("challenger", metrics=GOOD | {"n": 0.0}), "test_rows"),
        (_with("challenger", metrics=GOOD | {"positives": 99.0}), "test_positives"),
        (_with("challenger", metrics=GOOD | {"calibration_error": 0.06}), "calibration_error"),
        (_with("challenger", metrics=GOOD | {"pr_auc": 0.44}), "pr_auc_against_champion"),
        (_with("challenger", metrics=GOOD | {"pr_auc": 0.29}), "pr_auc_against_rule"),
        (_with("challenger", metrics=GOOD | {"score_psi": 0.26}), "score_psi"),
        (_with("challenger", metrics=GOOD | {"roc_auc": 0.59}), "floor_roc_auc"),
        *[
            (_gain(f"gain_over_{who}", **changes), f"gain_over_{who}_low")
            for who, bad in (("champion", -0.011), ("rule", -0.001))
            for changes in (
                {"low": bad},
                {"low": math.nan},
                {"low": None},
                {"metric": "brier_skill"},
                {"confidence": 0.9},
                {"resamples": 10},
            )
        ],
        (msgspec.structs.replace(EVIDENCE, gain_over_rule=None), "gain_over_rule_low"),
        (msgspec.structs.replace(EVIDENCE, gain_over_champion=None), "gain_over_champion_low"),
        (_parts(msgspec.structs.replace(PART, challenger=0.46), SMALL), "slice_market"),
        (_parts(msgspec.structs.replace(PART, challenger=math.nan), SMALL), "slice_market"),
        (_parts(msgspec.structs.replace(PART, reference=None), SMALL), "slice_market"),
        (_parts(msgspec.structs.replace(PART, metric="roc_auc"), SMALL), "slice_market"),
        (_parts(PART), "slice_market"),
        (_parts(), "slice_market"),
        (_with("challenger", window_hash="other"), "challenger_window"),
        (_with("challenger", window_hash=None), "challenger_window"),
        (_with("challenger", trained_until=START + timedelta(hours=1)), "challenger_unseen"),
        (_with("challenger", parity_max_abs_difference=2e-6), "export_parity"),
        (_with("challenger", parity_max_abs_difference=None), "export_parity"),
        (_with("challenger", parity_max_abs_difference=math.nan), "export_parity"),
        (_with("serving", max_abs_difference=2e-6), "serving_parity"),
        (_with("serving", max_abs_difference=None), "serving_parity"),
        (_with("serving", latency_ms=21.0), "serving_latency_ms"),
        (_with("serving", latency_ms=math.nan), "serving_latency_ms"),
        (msgspec.structs.replace(EVIDENCE, serving=None), "serving_parity"),
        (msgspec.structs.replace(EVIDENCE, serving=None), "serving_latency_ms"),
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
    verdict = judge(GATE, evidence)
    assert not verdict.passed
    assert failing in {c.name for c in verdict.failures}
    assert all(c.why for c in verdict.conditions)


@pytest.mark.parametrize("evidence", [EVIDENCE, FIRST, _with("challenger", metrics=GOOD | {"lift": math.nan})])
def test_round_trip_gives_the_same_verdict(evidence: Evidence) -> None:
    """Guards replaying a promotion from its stored evidence."""
    verdict = judge(GATE, evidence)
    again = Evidence.from_json(evidence.to_json())
    assert judge(GATE, again) == verdict
    assert Evidence.from_json(again.to_json()) == again
    assert Verdict.from_json(verdict.to_json()) == verdict


FOCUSED = replace(GATE, slices=(replace(GATE.slices[0], focus="XETR", focus_gain=0.15),))
FOCUS = FocusEvidence(
    slice="market", value="XETR", n=600, positives=100, challenger=0.5, rule=0.4,
    gain=msgspec.structs.replace(GAIN, value=0.25, low=0.02, high=0.4, relative=True),
)  # fmt: skip
WITH_FOCUS = msgspec.structs.replace(EVIDENCE, focuses=(FOCUS,))


def test_a_focus_is_judged_by_its_share_over_the_rule() -> None:
    """Guards the second label: a model that is good on the whole may not be promoted if it is not where it is asked."""
    verdict = judge(FOCUSED, WITH_FOCUS)
    assert verdict.passed
    gain = next(c for c in verdict.conditions if c.name == "focus_market_gain_over_rule")
    assert (gain.value, gain.threshold) == (0.25, 0.15)
    assert "where market is XETR" in gain.why
    assert "pr_auc 0.500 against 0.400 on 600 decisions" in gain.why
    assert judge(GATE, WITH_FOCUS).passed
    assert not any(c.name.startswith("focus_") for c in judge(GATE, WITH_FOCUS).conditions), "not asked, not judged"


@pytest.mark.parametrize(
    ("focuses", "failing"),
    [
        ((), {"positives", "gain_over_rule", "gain_over_rule_low"}),
        ((FOCUS, FOCUS), {"positives", "gain_over_rule", "gain_over_rule_low"}),
        ((msgspec.structs.replace(FOCUS, n=599),), {"positives", "gain_over_rule", "gain_over_rule_low"}),
        ((msgspec.structs.replace(FOCUS, value="XPAR"),), {"positives", "gain_over_rule", "gain_over_rule_low"}),
        ((msgspec.structs.replace(FOCUS, positives=49),), {"positives"}),
        *[
            ((msgspec.structs.replace(FOCUS, gain=msgspec.structs.replace(FOCUS.gain, **changes)),), failing)
            for changes, failing in (
                ({"value": 0.149}, {"gain_over_rule"}),
                ({"value": math.nan}, {"gain_over_rule"}),
                ({"value": None}, {"gain_over_rule"}),
                ({"low": -0.001}, {"gain_over_rule_low"}),
                ({"low": math.nan}, {"gain_over_rule_low"}),
                ({"resamples": 10}, {"gain_over_rule_low"}),
                ({"confidence": 0.5}, {"gain_over_rule_low"}),
                ({"relative": False}, {"gain_over_rule", "gain_over_rule_low"}),
                ({"metric": "brier_skill"}, {"gain_over_rule", "gain_over_rule_low"}),
            )
        ],
    ],
)  # fmt: skip
def test_a_focus_fails_closed(focuses: tuple[FocusEvidence, ...], failing: set[str]) -> None:
    """Guards the focus: what is missing, twice there, of other rows or made otherwise is never a pass."""
    verdict = judge(FOCUSED, msgspec.structs.replace(EVIDENCE, focuses=focuses))
    assert {c.name for c in verdict.failures} == {f"focus_market_{name}" for name in failing}


def test_a_gain_cannot_be_asked_of_no_focus() -> None:
    with pytest.raises(ValueError, match="slice market: focus_gain asks"):
        SliceSpec("market", "mic", focus_gain=0.15)


def test_gain_is_asked_of_rule_and_champion() -> None:
    verdict = judge(replace(GATE, min_gain=0.06), EVIDENCE)
    assert {c.name for c in verdict.failures} == {"pr_auc_against_champion"}


def test_a_slice_with_few_fails_is_shown_and_not_judged() -> None:
    verdict = judge(GATE, _parts(msgspec.structs.replace(PART, positives=49), SMALL))
    (condition,) = (c for c in verdict.conditions if c.name == "slice_market")
    assert condition.passed
    assert condition.value == "none with 50 fails"


def test_the_worst_part_is_named() -> None:
    good = msgspec.structs.replace(PART, value="XAMS", n=100, challenger=0.6)
    bad = msgspec.structs.replace(PART, value="XLUX", n=300, challenger=0.4)
    (failure,) = judge(GATE, _parts(msgspec.structs.replace(PART, n=600), good, bad)).failures
    assert failure.value == pytest.approx(0.12)
    assert "worst of 3 is XLUX, pr_auc 0.400 against the champion's 0.520 on 300 decisions" in failure.why


def test_a_list_that_costs_more_than_it_saves_is_refused_by_default() -> None:
    """Guards: a model of good lift was promoted whose list cost more to act on than it saved."""
    loss = _with("challenger", metrics=GOOD | {"saved_per_day": -0.01})
    assert [c.name for c in judge(GATE, loss).failures] == ["saved_per_day"]
    assert judge(replace(GATE, min_saved_per_day=-1.0), loss).passed
    assert judge(replace(GATE, min_saved_per_day=-math.inf), loss).passed
    assert not judge(replace(GATE, min_saved_per_day=121.0), EVIDENCE).passed


def test_where_acting_is_free_the_gate_says_so_and_passes() -> None:
    free = msgspec.structs.replace(EVIDENCE, action_cost=0.0)
    (condition,) = [c for c in judge(GATE, free).conditions if c.name == "saved_per_day"]
    assert condition.passed
    assert "acting is free" in condition.why
    assert not judge(replace(GATE, min_saved_per_day=121.0), free).passed


def test_a_model_of_the_few_dates_since_a_change_must_be_better_beyond_chance():
    """Guards a champion that has learned a week by heart: on three days it may be a little better by luck."""
    assert GAIN.low < 0
    assert judge(GATE, EVIDENCE).passed
    few = msgspec.structs.replace(EVIDENCE, since=date(2024, 2, 26))
    (missed,) = judge(GATE, few).failures
    assert (missed.name, missed.threshold) == ("gain_over_champion_low", 0.0)
    assert "it has learned from the few dates since 2024-02-26" in missed.why
    sure = msgspec.structs.replace(few, gain_over_champion=msgspec.structs.replace(GAIN, low=0.001))
    assert judge(GATE, sure).passed
    assert Evidence.from_json(few.to_json()).since == date(2024, 2, 26)
    assert judge(GATE, msgspec.structs.replace(few, champion_exists=False, champion=None)).passed, "nothing to beat"
