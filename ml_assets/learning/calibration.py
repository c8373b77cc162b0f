"""Calibration as plain data: coefficients or knots, stored beside the model and applied by these few lines.

`CalibratedClassifierCV` is not used: its ONNX export can be silently wrong.
"""

from typing import Literal, Self

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

# With fewer outcomes of either kind, the shape of the curve is not known.
MIN_OUTCOMES_PLATT = 20
MIN_OUTCOMES_ISOTONIC = 100
# An isotonic curve is flat in places; this share of the input keeps the ranking of the model.
TIE_BREAK = 1e-3
# Knots are at least this share of the range of the groups' means apart.
NEAREST_KNOTS = 1e-2
# Beyond these, log-odds mean nothing; above, float32 cannot resolve more either.
_LEAST, _MOST = 1e-9, 1 - 1e-6


class Calibration(msgspec.Struct, frozen=True):
    """A strictly increasing map of probabilities onto probabilities.

    `none` is the identity; `platt` is sigmoid(a logit(p) + b), a > 0 (Platt 1999, on the logit); `isotonic`
    is linear between the knots (x, y), which begin at 0 and end at 1.
    """

    method: Literal["none", "platt", "isotonic"] = "none"
    a: float = 1.0
    b: float = 0.0
    x: tuple[float, ...] = ()
    y: tuple[float, ...] = ()

    def apply(self, probabilities: ArrayLike) -> Floats:
        """Return the calibrated probabilities, each in [0, 1]."""
        p = np.asarray(probabilities, dtype=np.float64)
        if self.method == "platt":
            return _sigmoid(self.a * _logit(p) + self.b)
        if self.method == "isotonic":
            return np.interp(p, self.x, self.y)
        return p

    def shifted(self, log_odds: float) -> Self:
        """Return the calibration whose probabilities have these log-odds more: at the knots, if it has knots."""
        if self.method == "isotonic":
            moved = _sigmoid(_logit(np.array(self.y)) + log_odds)
            return msgspec.structs.replace(self, y=tuple(moved.tolist()))
        return msgspec.structs.replace(self, method="platt", b=self.b + log_odds)

    def to_json(self) -> str:
        """Return the calibration as JSON."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Return the calibration that `to_json` wrote.

        Raises:
            msgspec.ValidationError: the text is not a calibration.
        """
        return msgspec.json.decode(text, type=cls)


def choose_calibration(probabilities: ArrayLike, labels: ArrayLike) -> tuple[Calibration, dict[str, float]]:
    """Return the calibration with the lowest Brier score on rows that it was not fitted on, and the score per method.

    The rows are in the order of time. Each half is calibrated by a fit on the other; the method that is best
    on both together is fitted again on all rows. The simpler one wins a tie. A method has the score NaN if there are
    too few outcomes for it, or if it does not give an increasing curve.
    """
    p, y = np.asarray(probabilities, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    halves = np.arange(len(p)) < len(p) // 2
    best = Calibration()
    scores = {"none": brier(p, y) if len(p) else np.nan}
    for method, fit in (("platt", _fit_platt), ("isotonic", _fit_isotonic)):
        crossed = np.full(len(p), np.nan)
        for half in (halves, ~halves):
            fitted = fit(p[~half], y[~half])
            if fitted is not None:
                crossed[half] = fitted.apply(p[half])
        score = brier(crossed, y) if len(p) else np.nan
        final = fit(p, y)
        if final is not None and score < min(scores.values()):  # false when NaN
            best = final
        scores[method] = score if final is not None else np.nan
    return best, scores


def with_level(calibration: Calibration, probabilities: ArrayLike, labels: ArrayLike) -> Calibration:
    """Return the calibration, shifted in log-odds so that its mean on these rows is the share of those that failed.

    Calibration in the large (Cox 1958): the shape stays. `probabilities` (n,) are uncalibrated. If all rows have the
    same outcome, the calibration is returned unchanged.
    """
    from scipy.optimize import brentq

    p, y = np.asarray(probabilities, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    if not len(y) or not 0.0 < y.mean() < 1.0:
        return calibration

    def excess(shift: float) -> float:
        return float(calibration.shifted(shift).apply(p).mean() - y.mean())

    most = 20.0
    if not excess(-most) < 0.0 < excess(most):
        return calibration
    return calibration.shifted(float(brentq(excess, -most, most)))


def log_odds(probabilities: ArrayLike) -> Floats:
    """Return the log-odds of probabilities, clipped to at least 1e-9 and at most 1 - 1e-6."""
    return _logit(np.asarray(probabilities, dtype=np.float64))


def brier(probabilities: Floats, labels: Floats) -> float:
    """Return the mean squared difference between probability and outcome (Brier 1950)."""
    return float(np.mean((probabilities - labels) ** 2))


def _fit_platt(p: Floats, y: Floats) -> Calibration | None:
    """Fit a and b by Newton's method; None if the data do not allow an increasing curve."""
    if min(y.sum(), (1 - y).sum()) < MIN_OUTCOMES_PLATT:
        return None
    design = np.column_stack([_logit(p), np.ones(len(p))])
    beta = np.array([1.0, 0.0])
    for _ in range(50):
        fitted = _sigmoid(design @ beta)
        # The ridge keeps the step defined when all p are equal.
        hessian = design.T @ (design * (fitted * (1 - fitted))[:, None]) + 1e-6 * np.eye(2)
        step = np.linalg.solve(hessian, design.T @ (y - fitted))
        loss = _log_loss(design @ beta, y)
        # From an overconfident start a full step can overshoot for ever.
        while np.abs(step).max() > 1e-10 and not _log_loss(design @ (beta + step), y) <= loss:
            step = step / 2
        beta = beta + step
        if np.abs(step).max() <= 1e-10:
            break
    a, b = float(beta[0]), float(beta[1])
    return Calibration("platt", a=a, b=b) if 0.0 < a < 20.0 and abs(b) < 50.0 else None


def _log_loss(z: Floats, y: Floats) -> float:
    """Return the summed log loss of log-odds z."""
    return float(np.sum(np.logaddexp(0.0, z) - y * z))


def _fit_isotonic(p: Floats, y: Floats) -> Calibration | None:
    """Fit a non-decreasing curve through at most 20 groups of about equal size; None if there are too few."""
    from sklearn.isotonic import isotonic_regression

    if min(y.sum(), (1 - y).sum()) < MIN_OUTCOMES_ISOTONIC:
        return None
    group = _groups(p, min(20, int(y.sum()) // 50))
    sizes = np.bincount(group).astype(np.float64)
    x = np.bincount(group, weights=p) / sizes
    rate = np.bincount(group, weights=y) / sizes
    level = np.asarray(isotonic_regression(rate, sample_weight=sizes, y_min=0.0, y_max=1.0))
    x, level = np.concatenate([[0.0], x, [1.0]]), np.concatenate([level[:1], level, level[-1:]])
    x, first = np.unique(x, return_index=True)
    level = (1 - TIE_BREAK) * level[first] + TIE_BREAK * x
    return Calibration("isotonic", x=tuple(x.tolist()), y=tuple(level.tolist()))


def _groups(p: Floats, n: int) -> NDArray[np.int64]:
    """Return the group of each probability, numbered from 0 in their order; equal ones share a group.

    Groups whose means nearly touch become one: between them the curve would be so steep that a rounding
    difference in the model, such as that of its export, would no longer be one after calibration.
    """
    group = np.searchsorted(np.quantile(p, np.linspace(0, 1, n + 1)[1:-1]), p, side="right")
    _, group = np.unique(group, return_inverse=True)
    centre = np.bincount(group, weights=p) / np.bincount(group)
    merged = np.zeros(len(centre), dtype=np.int64)
    last = 0
    for i in range(1, len(centre)):
        apart = centre[i] - centre[last] >= NEAREST_KNOTS * (centre[-1] - centre[0])
        merged[i] = merged[i - 1] + apart
        last = i if apart else last
    return merged[group]


def _logit(p: Floats) -> Floats:
    p = np.clip(p, _LEAST, _MOST)
    return np.asarray(np.log(p) - np.log1p(-p))


def _sigmoid(z: Floats) -> Floats:
    from scipy.special import expit

    return np.asarray(expit(z))
