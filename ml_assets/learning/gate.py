"""The gate: may the challenger be promoted? A condition fails if its value is missing, undefined or not comparable."""

import math
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from typing import Literal, Self

import msgspec

from ml_assets.spec import GateSpec, SliceSpec

# The export must agree with the pipeline to this difference in probability.
PARITY_TOLERANCE = 1e-6


class ModelEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about one model on the window. None is unknown, and so is a metric that is absent, None or NaN.

    `trained_until` is the time by which the last label was known that the model was fitted or calibrated on;
    `run_id` is its training's MLflow run.
    """

    name: str
    run_id: str | None = None
    window_hash: str | None = None
    metrics: Mapping[str, float | None] = {}
    trained_until: datetime | None = None
    parity_max_abs_difference: float | None = None


class Gain(msgspec.Struct, frozen=True, kw_only=True):
    """How much better the challenger is than another model in a metric: the difference and its paired interval.

    The interval is from a bootstrap over `days`, with that confidence and number of resamples. A `relative` gain is a
    share of the other model's metric.
    """

    metric: str
    value: float | None
    low: float | None
    high: float | None
    confidence: float
    resamples: int
    days: int
    relative: bool = False


class FocusEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """The challenger against the rule on the decisions of a slice's focus; the gain is relative."""

    slice: str
    value: str
    n: int
    positives: int
    challenger: float | None
    rule: float | None
    gain: Gain


class SliceEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """A metric of the challenger and of its opponent (champion or rule) on the part of a slice with one value."""

    slice: str
    value: str
    n: int
    positives: int
    metric: str
    challenger: float | None
    reference: float | None
    against: str

    @property
    def loss(self) -> float | None:
        """How much worse the challenger is; None if that is not known."""
        mine, other = _known(self.challenger), _known(self.reference)
        return None if mine is None or other is None else other - mine


class Standing(msgspec.Struct, frozen=True):
    """Who is champion at the time of the judgement: its MLflow run, None if there is no champion."""

    run_id: str | None


class ServingEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """What a fresh process measured on a saved model: `model_hash` is the SHA-256 of its ONNX file.

    `latency_ms` is the median time of scoring one decision, `load_ms` that of opening the model.
    """

    model_hash: str
    rows: int
    max_abs_difference: float | None
    latency_ms: float | None
    load_ms: float | None


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a promotion rests on.

    `serving` is what a fresh process measured on the challenger's saved model. `champion_exists` False means that there
    is no champion yet; None means that nobody looked. `model_hash` is the SHA-256 of the files of the challenger's
    model as they were evaluated: no other model is promoted on this evidence. `action_cost` is the cost of acting on
    one decision with which `saved_per_day` was measured. `since` is the change since which the challenger has learned,
    if from the dates since then alone.
    """

    window_hash: str
    window_first_decision: datetime | None
    challenger: ModelEvidence | None
    rule: ModelEvidence | None
    champion_exists: bool | None
    champion: ModelEvidence | None = None
    gain_over_rule: Gain | None = None
    gain_over_champion: Gain | None = None
    slices: tuple[SliceEvidence, ...] = ()
    focuses: tuple[FocusEvidence, ...] = ()
    serving: ServingEvidence | None = None
    model_hash: str | None = None
    action_cost: float | None = None
    since: date | None = None

    def to_json(self) -> str:
        """Return the evidence as JSON; NaN becomes null."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Return the evidence that `to_json` wrote.

        Raises:
            msgspec.ValidationError: the text is not an evidence.
        """
        return msgspec.json.decode(text, type=cls)


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """One requirement: `value comparison threshold`, whether it holds, and the reason for it."""

    name: str
    value: float | str | None
    comparison: Literal[">=", "<=", "=="]
    threshold: float | str | None
    passed: bool
    why: str


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the challenger passed, and each condition."""

    passed: bool
    conditions: tuple[Condition, ...]

    @property
    def failures(self) -> tuple[Condition, ...]:
        """The conditions that do not hold."""
        return tuple(c for c in self.conditions if not c.passed)

    def to_json(self) -> str:
        """Return the verdict as JSON."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Return the verdict that `to_json` wrote."""
        return msgspec.json.decode(text, type=cls)


def require(
    name: str, value: float | None, comparison: Literal[">=", "<="], threshold: float | None, why: str
) -> Condition:
    """Return the condition `value comparison threshold`; it fails if either side is not a number."""
    value, threshold = _known(value), _known(threshold)
    if value is None or threshold is None:
        passed, why = False, f"{why}; not known, so the condition fails"
    else:
        passed = value >= threshold if comparison == ">=" else value <= threshold
    return Condition(name=name, value=value, comparison=comparison, threshold=threshold, passed=passed, why=why)


def judge(gate: GateSpec, evidence: Evidence, standing: Standing | None = None) -> Verdict:
    """Return the verdict on the challenger; it passes only if every condition holds.

    With `standing`, a condition fails if the evidence is against a champion that has been replaced meanwhile.
    """
    challenger = evidence.challenger
    conditions = [
        require("test_rows", _metric(challenger, "n"), ">=", 1.0, "there are rows to judge on"),
        require(
            "test_positives",
            _metric(challenger, "positives"),
            ">=",
            float(gate.min_test_positives),
            "fewer fails say too little",
        ),
        _same_window("challenger", challenger, evidence),
        _same_window("rule", evidence.rule, evidence),
        _unseen("challenger", challenger, evidence),
        require(
            "export_parity",
            challenger.parity_max_abs_difference if challenger else None,
            "<=",
            PARITY_TOLERANCE,
            "the ONNX model gives the pipeline's probabilities",
        ),
        *_serving_conditions(gate, evidence.serving),
        require("lift", _metric(challenger, "lift"), ">=", gate.min_lift, "PR-AUC above the base rate"),
        *(
            require(f"floor_{name}", _metric(challenger, name), ">=", least, "the least that this use case asks")
            for name, least in gate.floors.items()
        ),
        require(
            "calibration_error",
            _metric(challenger, "calibration_error"),
            "<=",
            gate.max_calibration_error,
            "expected costs need probabilities that mean what they say",
        ),
        require(
            "score_psi",
            _metric(challenger, "score_psi"),
            "<=",
            gate.max_score_psi,
            "scores of the test window are spread as those of the calibration window",
        ),
        require(
            f"{gate.metric}_against_rule",
            _metric(challenger, gate.metric),
            ">=",
            _add(_metric(evidence.rule, gate.metric), gate.min_gain),
            "a model must beat the business rule on the same rows",
        ),
        _low_end(
            "gain_over_rule_low",
            gate,
            evidence.gain_over_rule,
            gate.min_gain_over_rule_low,
            "the gain over the rule is not chance",
        ),
        _saving(gate, evidence),
        *_champion_conditions(gate, evidence),
        *(_slice_condition(gate, spec, evidence) for spec in gate.slices),
        *(
            condition
            for spec in gate.slices
            if spec.focus_gain is not None
            for condition in _focus_conditions(gate, spec, spec.focus_gain, evidence)
        ),
    ]
    if standing is not None:
        conditions.append(_still_standing(evidence, standing))
    return Verdict(passed=all(c.passed for c in conditions), conditions=tuple(conditions))


def _serving_conditions(gate: GateSpec, serving: ServingEvidence | None) -> Iterable[Condition]:
    return [
        require(
            "serving_parity",
            serving.max_abs_difference if serving else None,
            "<=",
            PARITY_TOLERANCE,
            "the saved model, loaded in a fresh process, gives the pipeline's probabilities on the golden sample",
        ),
        require(
            "serving_latency_ms",
            serving.latency_ms if serving else None,
            "<=",
            gate.max_serving_ms,
            "one decision is scored within the budget, at the median",
        ),
    ]


def _saving(gate: GateSpec, evidence: Evidence) -> Condition:
    """Ask that acting on the work-lists does not cost more than it saves; free actions always pass."""
    name, least = "saved_per_day", gate.min_saved_per_day
    saved = _known(_metric(evidence.challenger, name))
    if least == -math.inf:
        return Condition(name=name, value=saved, comparison=">=", threshold=None, passed=True, why="not asked")
    if evidence.action_cost == 0 and least <= 0:
        why = "acting is free (ActionSpec.cost is 0), so a list cannot cost more than it saves"
        return Condition(name=name, value=saved, comparison=">=", threshold=least, passed=True, why=why)
    return require(
        name, saved, ">=", least, "a decision date, acting on the work-lists must not cost more than it saves"
    )


def _champion_conditions(gate: GateSpec, evidence: Evidence) -> Iterable[Condition]:
    if evidence.champion_exists is False and evidence.champion is None:
        return [
            Condition(
                name="champion",
                value="none yet",
                comparison="==",
                threshold="none yet",
                passed=True,
                why="there is no champion to beat",
            )
        ]
    champion = evidence.champion if evidence.champion_exists else None
    least, why = -gate.max_regret, "the challenger is not likely to be worse than the champion by more"
    if evidence.since is not None:
        least, why = (
            0.0,
            f"it has learned from the few dates since {evidence.since}, so it must be better beyond chance",
        )
    return [
        _same_window("champion", champion, evidence),
        _unseen("champion", champion, evidence),
        require(
            f"{gate.metric}_against_champion",
            _metric(evidence.challenger, gate.metric),
            ">=",
            _add(_metric(champion, gate.metric), gate.min_gain),
            "the challenger must be as good as the champion on the same rows",
        ),
        _low_end(
            "gain_over_champion_low",
            gate,
            evidence.gain_over_champion,
            least,
            why,
        ),
    ]


def _focus_conditions(gate: GateSpec, spec: SliceSpec, least: float, evidence: Evidence) -> Iterable[Condition]:
    """Ask for enough fails in the focus of a slice, and for a gain over the rule there that is not due to chance."""
    parts = [part for part in evidence.slices if (part.slice, part.value) == (spec.name, spec.focus)]
    found = [
        focus
        for focus in evidence.focuses
        if (focus.slice, focus.value) == (spec.name, spec.focus) and [focus.n] == [part.n for part in parts]
    ]
    focus = found[0] if len(found) == 1 else None
    gain = focus.gain if focus and focus.gain.relative and focus.gain.metric == gate.metric else None
    where = f"where {spec.name} is {spec.focus}"
    measured = (
        f", {gate.metric} {_said(focus.challenger)} against {_said(focus.rule)} on {focus.n:,} decisions"
        if focus and gain
        else ""
    )
    return [
        require(
            f"focus_{spec.name}_positives",
            float(focus.positives) if focus else None,
            ">=",
            float(spec.min_positives),
            f"fewer fails {where} say too little",
        ),
        require(
            f"focus_{spec.name}_gain_over_rule",
            gain.value if gain else None,
            ">=",
            least,
            f"{where}, a model must be above the rule by this share of it{measured}",
        ),
        _low_end(
            f"focus_{spec.name}_gain_over_rule_low",
            gate,
            gain,
            spec.focus_gain_low,
            f"the gain over the rule {where} is not chance",
        ),
    ]


def _low_end(name: str, gate: GateSpec, gain: Gain | None, threshold: float, why: str) -> Condition:
    """Ask for the low end of an interval with the gate's present settings; another interval is not evidence."""
    asked = (gate.metric, gate.confidence, gate.resamples)
    if gain is None:
        return require(name, None, ">=", threshold, why)
    if (gain.metric, gain.confidence, gain.resamples) != asked:
        made = f"{gain.metric}, {gain.confidence:.0%}, {gain.resamples} resamples"
        return require(name, None, ">=", threshold, f"{why}; the interval at hand is of {made}")
    measured = f"{gain.confidence:.0%} interval, {gain.days} days resampled"
    return require(name, gain.low, ">=", threshold, f"{why} ({measured})")


def _slice_condition(gate: GateSpec, spec: SliceSpec, evidence: Evidence) -> Condition:
    """Ask that no part of a slice with enough fails has lost too much; parts must add up to the whole window."""
    name = f"slice_{spec.name}"
    parts = [part for part in evidence.slices if part.slice == spec.name and part.metric == gate.metric]
    whole = _known(_metric(evidence.challenger, "n"))
    if whole is None or sum(part.n for part in parts) != whole:
        return require(name, None, "<=", spec.max_loss, f"no {spec.name} gets worse; its parts are not the window")
    judged = [part for part in parts if part.positives >= spec.min_positives]
    if not judged:
        few = f"none with {spec.min_positives} fails"
        return Condition(
            name=name, value=few, comparison="==", threshold=few, passed=True, why=f"no {spec.name} gets worse"
        )
    worst = max(judged, key=lambda part: math.inf if part.loss is None else part.loss)
    why = (
        f"no {spec.name} gets worse; worst of {len(judged)} is {worst.value}, {gate.metric} {_said(worst.challenger)} "
        f"against the {worst.against}'s {_said(worst.reference)} on {worst.n:,} decisions"
    )
    return require(name, worst.loss, "<=", spec.max_loss, why)


def _still_standing(evidence: Evidence, standing: Standing) -> Condition:
    """Ask that the champion of the evidence is the champion of now, or that the challenger has become it."""
    compared = evidence.champion.run_id if evidence.champion else None
    is_challenger = bool(standing.run_id) and evidence.challenger is not None and (
        standing.run_id == evidence.challenger.run_id
    )  # fmt: skip
    nobody = standing.run_id is None and evidence.champion_exists is False
    return Condition(
        name="champion_of_now",
        value=standing.run_id or "none yet",
        comparison="==",
        threshold=standing.run_id if is_challenger else compared or "none yet",
        passed=is_challenger or nobody or (standing.run_id is not None and standing.run_id == compared),
        why="the evidence is against the champion of now, not an earlier one",
    )


def _said(value: float | None) -> str:
    known = _known(value)
    return "unknown" if known is None else f"{known:.3f}"


def _same_window(who: str, model: ModelEvidence | None, evidence: Evidence) -> Condition:
    window = model.window_hash if model else None
    return Condition(
        name=f"{who}_window",
        value=window,
        comparison="==",
        threshold=evidence.window_hash,
        passed=bool(window) and window == evidence.window_hash,
        why=f"the {who} was evaluated on exactly these rows",
    )


def _unseen(who: str, model: ModelEvidence | None, evidence: Evidence) -> Condition:
    until, first = _aware(model.trained_until if model else None), _aware(evidence.window_first_decision)
    return Condition(
        name=f"{who}_unseen",
        value=until.isoformat() if until else None,
        comparison="<=",
        threshold=first.isoformat() if first else None,
        passed=until is not None and first is not None and until <= first,
        why=f"the {who} learned nothing from the window",
    )


def _metric(model: ModelEvidence | None, name: str) -> float | None:
    return model.metrics.get(name) if model else None


def _add(value: float | None, gain: float) -> float | None:
    return None if value is None else value + gain


def _known(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value


def _aware(moment: datetime | None) -> datetime | None:
    """Return the time if its zone is known: without one it cannot be compared."""
    return moment if moment is not None and moment.tzinfo is not None else None
