"""The reasons for a probability: its log-odds, divided among the causes that an analyst can act on.

Shapley values (Shapley 1953; Lundberg and Lee 2017) with the causes as players, computed exactly: a use case has few
causes, so every coalition is scored. A coalition takes the decision's features for its causes, and those of background
decisions for all others. The model is only asked for probabilities, so one mechanism serves every model that scores,
and nothing is unpickled. The causes divide the log-odds of the calibrated probability, the one that people see:

    log_odds(probability) = base + sum of the contributions

`base` is the mean log-odds of the background. A feature that is partly a formula of others (a checklist of points)
follows them: see `Feature.explained_by`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import factorial
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ml_assets.errors import InputError
from ml_assets.learning.calibration import log_odds
from ml_assets.learning.drift_reference import evenly
from ml_assets.learning.frames import MISSING_CATEGORY, FeatureNames, model_arrays
from ml_assets.learning.scorer import Scorer
from ml_assets.spec import Cause, UseCase

Floats = NDArray[np.float64]

# The contribution of features without a cause: the kind of decision, which nobody can change.
OTHER = "OTHER"
BACKGROUND_ROWS = 24
# How many decisions are explained at a time; this bounds memory.
_BATCH = 256
# How many pairs of a decision and a background decision are compared at a time.
_PAIRS = 4096
_DIGITS = 6


class Reasons(msgspec.Struct, frozen=True):
    """Why one decision has its probability: `log_odds` = `base` + the sum of `contributions`, by cause.

    Contributions are in log-odds, the largest first; below zero they speak against a fail.
    """

    log_odds: float
    base: float
    contributions: dict[str, float]


@dataclass(frozen=True)
class _Columns:
    """Rows as the model reads them: numbers (n, numeric) and categories (n, categorical)."""

    numbers: NDArray[np.float32]
    categories: NDArray[np.object_]

    def take(self, rows: NDArray[np.int64]) -> _Columns:
        return _Columns(self.numbers[rows], self.categories[rows])

    def by_name(self, names: FeatureNames) -> dict[str, NDArray[Any]]:
        numbers = {name: self.numbers[:, i].astype(np.float64) for i, name in enumerate(names.numeric)}
        return numbers | {name: self.categories[:, i] for i, name in enumerate(names.categorical)}


class Explainer:
    """Finds the reasons of decisions that a scorer has scored."""

    def __init__(self, usecase: UseCase, scorer: Scorer) -> None:
        """Take the causes from the use case and the background from the scorer's manifest.

        Raises:
            ValueError: the model was saved without a background.
        """
        names = scorer.manifest.features
        if not scorer.manifest.background:
            raise InputError(
                f"use case {usecase.name}: model {scorer.manifest.candidate!r} was saved without background decisions, "
                "so that it has no reasons; retrain it"
            )
        self._scorer, self._names = scorer, names
        self._background = _background_columns(names, scorer.manifest.background)
        cause_of = {feature.name: feature.cause or OTHER for feature in usecase.features}
        self.causes = tuple(dict.fromkeys(cause_of[name] for name in names.all))
        at = {cause: i for i, cause in enumerate(self.causes)}
        self._numeric_group = np.array([at[cause_of[name]] for name in names.numeric], dtype=np.int64)
        self._categorical_group = np.array([at[cause_of[name]] for name in names.categorical], dtype=np.int64)
        self._composed = {
            feature.name: feature.explained_by for feature in usecase.features if feature.explained_by is not None
        }
        self._weights = shapley_weights(len(self.causes))

    def explain(self, rows: pa.Table, probabilities: Floats) -> list[Reasons]:
        """Return the reasons of each row, whose calibrated `probabilities` (n,) the same scorer gave."""
        columns = _Columns(*model_arrays(self._names, rows))
        parts = [
            self._values(columns.take(np.arange(start, min(start + _BATCH, len(rows)))), self._background)
            for start in range(0, len(rows), _BATCH)
        ]
        values = np.concatenate(parts) if parts else np.empty((0, 1 << len(self.causes)))
        # The probability that was given, and not a rounding of it, is what is shared out.
        values[:, -1] = log_odds(probabilities)
        contributions = values @ self._weights.T
        return [self._reasons(*row) for row in zip(values[:, -1], values[:, 0], contributions, strict=True)]

    def contributions(self, rows: pa.Table, *, background: int = BACKGROUND_ROWS) -> Floats:
        """Return what each cause adds to the log-odds of each row: (n, causes), in the order of `causes`.

        With fewer `background` decisions, evenly chosen, it is so many times faster and a little rougher.
        """
        columns = _Columns(*model_arrays(self._names, rows))
        chosen = self._background.take(evenly(len(self._background.numbers), background))
        parts = [
            self._values(columns.take(np.arange(start, min(start + _BATCH, len(rows)))), chosen) @ self._weights.T
            for start in range(0, len(rows), _BATCH)
        ]
        return np.concatenate(parts) if parts else np.empty((0, len(self.causes)))

    def mean_contributions(self, rows: pa.Table) -> dict[str, float]:
        """Return the mean contribution of each cause to the log-odds of rows, less the mean of the background.

        Each row is compared with one background decision in turn, which gives the same mean as all of them do, at a
        fraction of the work; 0 without rows.
        """
        columns = _Columns(*model_arrays(self._names, rows))
        total = np.zeros(len(self.causes))
        for start in range(0, len(rows), _PAIRS):
            at = np.arange(start, min(start + _PAIRS, len(rows)))
            other = self._background.take(at % len(self._background.numbers))
            total += (self._coalitions(columns.take(at), other) @ self._weights.T).sum(axis=0)
        return dict(zip(self.causes, (total / max(1, len(rows))).tolist(), strict=True))

    def _reasons(self, total: float, base: float, contributions: Floats) -> Reasons:
        order = np.argsort(-contributions, kind="stable")
        shared = {self.causes[i]: float(round(contributions[i], _DIGITS)) for i in order}
        return Reasons(float(round(total, _DIGITS)), float(round(base, _DIGITS)), shared)

    def _values(self, x: _Columns, background: _Columns) -> Floats:
        """Return the mean log-odds over the background of each coalition: (n, 2 ** causes)."""
        n, b = len(x.numbers), len(background.numbers)
        ours = np.repeat(np.arange(n), b)
        theirs = np.tile(np.arange(b), n)
        values = self._coalitions(x.take(ours), background.take(theirs))
        return np.asarray(values.reshape(n, b, -1).mean(axis=1), dtype=np.float64)

    def _coalitions(self, own: _Columns, other: _Columns) -> Floats:
        """Return the log-odds of each coalition of each pair of rows: (pairs, 2 ** causes)."""
        coalitions = 1 << len(self.causes)
        # Causes in which a decision and a background decision are alike change nothing: those coalitions are one.
        differs = self._differing(own, other)
        masks = np.arange(coalitions)
        pair, mask = np.nonzero((masks[None, :] & ~differs[:, None]) == 0)
        scored = self._log_odds(own, other, pair, mask)
        table = np.zeros((len(own.numbers), coalitions))
        table[pair, mask] = scored
        return np.asarray(np.take_along_axis(table, masks[None, :] & differs[:, None], axis=1), dtype=np.float64)

    def _differing(self, own: _Columns, other: _Columns) -> NDArray[np.int64]:
        """Return the causes, as bits, in whose features two rows differ."""
        bits = np.zeros(len(own.numbers), dtype=np.int64)
        same = (own.numbers == other.numbers) | (np.isnan(own.numbers) & np.isnan(other.numbers))
        for column, group in enumerate(self._numeric_group):
            bits |= np.where(same[:, column], 0, 1 << group)
        for column, group in enumerate(self._categorical_group):
            bits |= np.where(own.categories[:, column] == other.categories[:, column], 0, 1 << group)
        return bits

    def _log_odds(self, own: _Columns, other: _Columns, pair: NDArray[np.int64], mask: NDArray[np.int64]) -> Floats:
        """Return the log-odds of mixed rows: of a pair, those causes that are bits of `mask` from `own`, else `other`.

        `pair` and `mask` (n,) are of the mixed rows; `own` and `other` have a row for each pair.
        """
        mine, theirs = own.take(pair), other.take(pair)
        takes = (mask[:, None] >> self._numeric_group) & 1 == 1
        numbers = np.where(takes, mine.numbers, theirs.numbers)
        takes_category = (mask[:, None] >> self._categorical_group) & 1 == 1
        mixed = _Columns(numbers, np.where(takes_category, mine.categories, theirs.categories))
        if self._composed:
            ours, others, both = (columns.by_name(self._names) for columns in (own, other, mixed))
            for column, name in enumerate(self._names.numeric):
                if name in self._composed:
                    formula = self._composed[name]
                    carried = np.where(takes[:, column], formula(ours)[pair], formula(others)[pair])
                    numbers[:, column] += (formula(both) - carried).astype(np.float32)
        return log_odds(self._scorer.score_arrays(mixed.numbers, mixed.categories))


def shapley_weights(players: int) -> Floats:
    """Return the matrix (players, 2 ** players) that turns values of coalitions into Shapley values.

    Coalitions are numbered by their members as bits.
    """
    weights = np.zeros((players, 1 << players))
    for coalition in range(1 << players):
        size = coalition.bit_count()
        for player in range(players):
            if coalition >> player & 1:
                weights[player, coalition] = factorial(size - 1) * factorial(players - size) / factorial(players)
            else:
                weights[player, coalition] = -factorial(size) * factorial(players - size - 1) / factorial(players)
    return weights


def choose_background(names: FeatureNames, rows: pa.Table, probabilities: Floats) -> dict[str, list[Any]]:
    """Return typical decisions, by feature: of `rows`, those at even quantiles of their probability (n,)."""
    if not len(rows):
        return {}
    count = min(BACKGROUND_ROWS, len(rows))
    at = ((np.arange(count) + 0.5) / count * len(rows)).astype(np.int64)
    chosen = np.argsort(probabilities, kind="stable")[at]
    numbers, categories = model_arrays(names, rows.take(pa.array(chosen)))
    background: dict[str, list[Any]] = {
        name: [None if np.isnan(value) else float(value) for value in numbers[:, i]]
        for i, name in enumerate(names.numeric)
    }
    return background | {name: categories[:, i].tolist() for i, name in enumerate(names.categorical)}


def main_cause(causes: Sequence[Cause], reasons: Reasons) -> Cause | None:
    """Return the cause that raises the probability most, or None if none raises it."""
    known = {cause.code: cause for cause in causes}
    raising = {code: value for code, value in reasons.contributions.items() if value > 0 and code in known}
    return known[max(raising, key=lambda code: raising[code])] if raising else None


def as_seen_by(usecase: UseCase, reasons: Reasons, attributes: Mapping[str, Any]) -> Reasons:
    """Return the reasons with each cause renamed as it meets us: see `UseCase.cause_for`."""
    if usecase.cause_for is None:
        return reasons
    shared: dict[str, float] = {}
    for code, value in reasons.contributions.items():
        seen = usecase.cause_for(code, attributes)
        shared[seen] = round(shared.get(seen, 0.0) + value, _DIGITS)
    ordered = sorted(shared.items(), key=lambda item: -item[1])
    return msgspec.structs.replace(reasons, contributions=dict(ordered))


def to_reason_codes(usecase: UseCase, reasons: Reasons) -> str:
    """Return the reasons as the JSON of the column `reason_codes`, with the main cause and its action."""
    cause = main_cause(usecase.causes, reasons)
    said = {
        "cause": cause.code if cause else None,
        "name": cause.name if cause else None,
        "action": cause.action if cause else None,
        "log_odds": reasons.log_odds,
        "base": reasons.base,
        "contributions": reasons.contributions,
    }
    return json.dumps(said)


def reason_codes(usecase: UseCase, scorer: Scorer, rows: pa.Table, probabilities: Floats) -> list[str | None]:
    """Return the `reason_codes` of rows (in `features_schema`); None where the use case declares no causes."""
    if not usecase.causes or not rows.num_rows:
        return [None] * rows.num_rows
    found = Explainer(usecase, scorer).explain(rows, probabilities)
    attributes = [json.loads(text or "{}") for text in rows["attributes"].to_pylist()]
    return [
        to_reason_codes(usecase, as_seen_by(usecase, reasons, said))
        for reasons, said in zip(found, attributes, strict=True)
    ]


def _background_columns(names: FeatureNames, background: Mapping[str, Sequence[Any]]) -> _Columns:
    rows = len(next(iter(background.values())))
    numbers = np.empty((rows, len(names.numeric)), dtype=np.float32)
    for i, name in enumerate(names.numeric):
        numbers[:, i] = [np.nan if value is None else value for value in background[name]]
    categories = np.empty((rows, len(names.categorical)), dtype=object)
    for i, name in enumerate(names.categorical):
        categories[:, i] = [value or MISSING_CATEGORY for value in background[name]]
    return _Columns(numbers, categories)
