"""From a comparison of models on one window to the evidence that the gate judges."""

from collections.abc import Iterator, Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray

from ml_assets.learning.bootstrap import metric_value, paired_interval
from ml_assets.learning.compare import Comparison
from ml_assets.learning.gate import Evidence, FocusEvidence, Gain, ModelEvidence, SliceEvidence
from ml_assets.learning.window import Window
from ml_assets.spec import GateSpec

Floats = NDArray[np.float64]


def build_evidence(
    gate: GateSpec,
    comparison: Comparison,
    models: Mapping[str, ModelEvidence],
    *,
    challenger: str,
    rule: str,
    champion: str | None,
    seed: int,
) -> Evidence:
    """Return the evidence on the challenger: its metrics, the rule's and the champion's, on the window.

    `models` has the evidence of each training on its model. The comparison's metrics replace those of the training;
    metrics that the comparison lacks (`score_psi`, `validation`) stay. `champion` is None if there is no champion; a
    champion that could not be compared is missing in `comparison.probabilities`.

    Raises:
        KeyError: challenger or rule is not in `models`.
    """
    window, probabilities = comparison.window, comparison.probabilities
    measured = {
        name: msgspec.structs.replace(
            model,
            name=name,
            window_hash=window.hash,
            metrics={**{k: v for k, v in model.metrics.items() if k in _OWN}, **comparison.of(name)},
        )
        for name, model in models.items()
        if name in probabilities
    }

    def gain_over(other: str, among: NDArray[np.bool_] | None = None) -> Gain | None:
        """Return the gain on the window, or the relative one among the chosen rows of it."""
        if other not in probabilities:
            return None
        rows = np.ones(len(window), dtype=np.bool_) if among is None else among
        part = window if among is None else window.take(rows)
        interval = paired_interval(
            part,
            probabilities[challenger][rows],
            probabilities[other][rows],
            metric=gate.metric,
            confidence=gate.confidence,
            resamples=gate.resamples,
            seed=seed,
            relative=among is not None,
        )
        return Gain(
            metric=gate.metric,
            value=interval.value,
            low=interval.low,
            high=interval.high,
            confidence=gate.confidence,
            resamples=gate.resamples,
            days=len(np.unique(part.days)),
            relative=among is not None,
        )

    def focuses() -> Iterator[FocusEvidence]:
        for spec in gate.slices:
            values = window.slices.get(spec.name)
            if spec.focus_gain is None or values is None:
                continue  # the gate misses it
            rows = values == spec.focus
            gain = gain_over(rule, rows)
            if gain is not None:
                part = window.take(rows)
                ours, rules = (metric_value(part, probabilities[m][rows], gate.metric) for m in (challenger, rule))
                yield FocusEvidence(
                    slice=spec.name,
                    value=spec.focus,
                    n=len(part),
                    positives=int(part.labels.sum()),
                    challenger=ours,
                    rule=rules,
                    gain=gain,
                )

    reference = champion if champion is not None and champion in probabilities else rule
    return Evidence(
        window_hash=window.hash,
        window_first_decision=window.first_decision_time,
        challenger=measured[challenger],
        rule=measured[rule],
        champion_exists=champion is not None,
        champion=measured.get(champion) if champion is not None else None,
        gain_over_rule=gain_over(rule),
        gain_over_champion=gain_over(champion) if champion is not None else None,
        slices=tuple(_by_slice(gate, window, probabilities[challenger], probabilities[reference], against=reference)),
        focuses=tuple(focuses()),
        action_cost=comparison.action.cost,
    )


# Metrics that a training measures beside those of the comparison.
_OWN = ("score_psi", "validation")


def _by_slice(
    gate: GateSpec, window: Window, challenger: Floats, reference: Floats, *, against: str
) -> Iterator[SliceEvidence]:
    for spec in gate.slices:
        values = window.slices.get(spec.name)
        if values is None:
            continue  # the gate misses it
        named = np.array([UNKNOWN if value is None else str(value) for value in values], dtype=object)
        for value in sorted(set(named)):
            mask = named == value
            part = window.take(mask)
            yield SliceEvidence(
                slice=spec.name,
                value=value,
                n=len(part),
                positives=int(part.labels.sum()),
                metric=gate.metric,
                challenger=metric_value(part, challenger[mask], gate.metric),
                reference=metric_value(part, reference[mask], gate.metric),
                against=against,
            )


UNKNOWN = "unknown"
