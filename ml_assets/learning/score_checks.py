"""Scores are judged before they are published: those of each date, against the model's calibration window.

Pure: rows and probabilities in, verdicts out.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ml_assets.errors import InputError
from ml_assets.learning.frames import FeatureNames, model_arrays
from ml_assets.learning.gate import Condition, Verdict, require
from ml_assets.learning.reference import ScoreReference, SlotReference, missing_shares, unknown_shares
from ml_assets.learning.stability import group_shares, stability_index
from ml_assets.spec import BatchSpec


class ScoresRefusedError(InputError):
    """Scores are not what the model gives on sound inputs; none of them was published."""

    def __init__(self, message: str, judged: "Sequence[DateVerdict]") -> None:
        super().__init__(message)
        self.judged = tuple(judged)


@dataclass(frozen=True, slots=True)
class DateVerdict:
    """The conditions on the scores of a decision date. Without conditions the scores were not judged; see `why`."""

    decision_date: date
    rows: int
    verdict: Verdict
    why: str = ""


def judge_batch(
    spec: BatchSpec,
    names: FeatureNames,
    reference: ScoreReference | None,
    features: pa.Table,
    probabilities: NDArray[np.float64],
) -> list[DateVerdict]:
    """Return a verdict on each decision date, the earliest first.

    `features` has `decision_date`, `slot` and the model's features; `probabilities` (n,) are the scores of its rows.
    Each date is judged by itself, so that a broken date does not hide among many sound ones.
    """
    days = features["decision_date"].to_numpy()
    judged = []
    for day in np.unique(days):
        chosen = days == day
        rows = features.filter(pa.array(chosen))
        conditions: tuple[Condition, ...] = ()
        why = ""
        if rows.num_rows < spec.min_rows:
            why = f"fewer than {spec.min_rows} decisions"
        elif reference is None:
            why = "the model was made before calibration windows were kept with models; retrain to have scores judged"
        else:
            conditions = tuple(_conditions(spec, names, reference, rows, probabilities[chosen]))
        verdict = Verdict(passed=all(c.passed for c in conditions), conditions=conditions)
        judged.append(DateVerdict(day.astype("datetime64[D]").item(), rows.num_rows, verdict, why))
    return judged


def refusal(usecase: str, judged: Sequence[DateVerdict]) -> str:
    """Return the message about refused scores: which condition fails on which date, and what to do."""
    refused = [one for one in judged if not one.verdict.passed]
    first = refused[0]
    said = "; ".join(
        f"{c.name} {'unknown' if c.value is None else f'{c.value:.3g}'}, the limit is {c.comparison} {c.threshold:.3g} "
        f"({c.why})"
        for c in first.verdict.failures
    )
    others = f", and so are {len(refused) - 1} other dates" if len(refused) > 1 else ""
    day = first.decision_date
    return (
        f"use case {usecase}: the scores of {day} ({first.rows:,} decisions) are refused{others}; nothing was "
        f"published. {said}. Look at the features and the curated events of that date, mend the feed, "
        f"`ml-assets ingest {usecase} --from {day}`, and score again. If the market is what has changed: "
        f'`ml-assets score {usecase} --date {day} --despite "the reason"`, and retrain'
    )


def _conditions(
    spec: BatchSpec, names: FeatureNames, reference: ScoreReference, rows: pa.Table, p: NDArray[np.float64]
) -> Iterator[Condition]:
    expected = _mixed(reference, rows["slot"].to_pylist())
    mean = float(p.mean())
    numbers, texts = model_arrays(names, rows)
    psi = stability_index(np.asarray(expected.scores), group_shares(p, reference.edges))
    yield require(
        "score_psi", psi, "<=", spec.max_psi, "scores are spread about as those of the calibration window, by its PSI"
    )
    window = f"that of the calibration window is {expected.mean:.4f}"
    yield require(
        "mean_probability", mean, ">=", _moved(expected.mean, 1 / spec.max_mean_ratio), f"not far too low; {window}"
    )
    yield require(
        "mean_probability", mean, "<=", _moved(expected.mean, spec.max_mean_ratio), f"not far too high; {window}"
    )
    yield _worst(
        "unknown_categories",
        unknown_shares(names, texts, reference.categories),
        expected.unknown,
        spec.max_unknown,
        "categories that the model has not learned, of",
    )
    yield _worst(
        "missing_features",
        missing_shares(names, numbers, texts),
        expected.missing,
        spec.max_missing,
        "missing values of",
    )


def _moved(probability: float, ratio: float) -> float:
    """Return the probability whose odds are `ratio` times as high."""
    return probability * ratio / (1 - probability + probability * ratio)


def _worst(name: str, found: Mapping[str, float], expected: Mapping[str, float], limit: float, why: str) -> Condition:
    """Return the condition on the feature whose share is furthest beyond that of the calibration window."""
    if not found:
        return require(name, 0.0, "<=", limit, f"{why} all features; this model has none of the kind")
    feature = max(found, key=lambda each: found[each] - expected[each])
    before = expected[feature]
    return require(
        name, found[feature], "<=", before + limit, f"{why} {feature}; share in the calibration: {before:.3g}"
    )


def _mixed(reference: ScoreReference, slots: Sequence[str]) -> SlotReference:
    """Return the calibration window weighted by the slots of these rows; an unknown slot counts as all slots."""
    named, counts = np.unique(np.asarray(slots, dtype=object).astype(str), return_counts=True)
    parts = [reference.slots.get(name, reference.whole) for name in named]
    weights = counts / counts.sum()

    def mean(shares: Sequence[Mapping[str, float]]) -> dict[str, float]:
        return {
            name: float(sum(weight * each[name] for weight, each in zip(weights, shares, strict=True)))
            for name in shares[0]
        }

    return SlotReference(
        rows=sum(part.rows for part in parts),
        mean=float(np.dot(weights, [part.mean for part in parts])),
        scores=tuple(np.dot(weights, [part.scores for part in parts]).tolist()),
        missing=mean([part.missing for part in parts]),
        unknown=mean([part.unknown for part in parts]),
    )
