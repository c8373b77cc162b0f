"""The gate: may the challenger be promoted? Whatever is missing, undefined or not comparable counts as no."""

import math
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Literal, Self

import msgspec

from ml_assets.spec import GateSpec

# The export must agree with the pipeline to this difference in probability.
PARITY_TOLERANCE = 1e-6


class ModelEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one model on the window. None is unknown, and so is a metric that is absent, None or
    NaN.

    `trained_until` is the time by which the last label was known that the model was fitted or calibrated on.
    """

    name: str
    window_hash: str | None = None
    metrics: Mapping[str, float | None] = {}
    trained_until: datetime | None = None
    parity_max_abs_difference: float | None = None


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a promotion rests on.

    `champion_exists` False says that there is none yet; None says that nobody looked, which is not the same.
    """

    window_hash: str
    window_first_decision: datetime | None
    challenger: ModelEvidence | None
    rule: ModelEvidence | None
    champion_exists: bool | None
    champion: ModelEvidence | None = None

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
    """One requirement: `value comparison threshold`, whether it holds, and why it is asked."""

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


def judge(gate: GateSpec, evidence: Evidence) -> Verdict:
    """Return the verdict on the challenger; it passes only if every condition holds."""
    challenger, rule = evidence.challenger, evidence.rule
    pr_auc = _metric(challenger, "pr_auc")
    conditions = [
        _compare("test_rows", _metric(challenger, "n"), ">=", 1.0, "there are rows to judge on"),
        _compare(
            "test_positives",
            _metric(challenger, "positives"),
            ">=",
            float(gate.min_test_positives),
            "fewer fails say too little",
        ),
        _same_window("challenger", challenger, evidence),
        _same_window("rule", rule, evidence),
        _unseen("challenger", challenger, evidence),
        _compare(
            "export_parity",
            challenger.parity_max_abs_difference if challenger else None,
            "<=",
            PARITY_TOLERANCE,
            "the ONNX model gives the pipeline's probabilities",
        ),
        _compare("lift", _metric(challenger, "lift"), ">=", gate.min_lift, "PR-AUC above the base rate"),
        _compare(
            "calibration_error",
            _metric(challenger, "calibration_error"),
            "<=",
            gate.max_calibration_error,
            "expected costs need probabilities that mean what they say",
        ),
        _compare(
            "pr_auc_against_rule",
            pr_auc,
            ">=",
            _add(_metric(rule, "pr_auc"), gate.min_gain),
            "a model must beat the business rule on the same rows",
        ),
        *_champion_conditions(gate, evidence, pr_auc),
    ]
    return Verdict(passed=all(c.passed for c in conditions), conditions=tuple(conditions))


def _champion_conditions(gate: GateSpec, evidence: Evidence, pr_auc: float | None) -> Iterable[Condition]:
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
    return [
        _same_window("champion", champion, evidence),
        _unseen("champion", champion, evidence),
        _compare(
            "pr_auc_against_champion",
            pr_auc,
            ">=",
            _add(_metric(champion, "pr_auc"), gate.min_gain),
            "the challenger must be as good as the champion on the same rows",
        ),
    ]


def _compare(
    name: str, value: float | None, comparison: Literal[">=", "<="], threshold: float | None, why: str
) -> Condition:
    value, threshold = _known(value), _known(threshold)
    if value is None or threshold is None:
        passed, why = False, f"{why}; not known, which counts as no"
    else:
        passed = value >= threshold if comparison == ">=" else value <= threshold
    return Condition(name=name, value=value, comparison=comparison, threshold=threshold, passed=passed, why=why)


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
