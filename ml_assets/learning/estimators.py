"""Three small estimators that scikit-learn lacks; `learning.export` teaches skl2onnx to convert them."""

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.linear_model import LogisticRegression
from sklearn.utils.validation import check_is_fitted, validate_data

from ml_assets.errors import InputError


class AsinhScaler(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Scale heavy-tailed numbers: asinh(x / typical magnitude), missing to the median, then mean 0 and
    deviation 1.

    asinh is linear below the typical magnitude (the median of the non-zero |x|) and logarithmic above, so a
    day count and a market value of 1e9 both come out near unit size and no value collapses in float32. With
    `add_indicator`, a 0/1 column follows for each input column that had missing values in training.
    """

    def __init__(self, *, add_indicator: bool = True) -> None:
        self.add_indicator = add_indicator

    def fit(self, X: ArrayLike, y: Any = None) -> Self:  # noqa: ARG002, N803
        """Learn magnitude, median, mean and deviation of each column."""
        x = self._validate(X, reset=True)
        missing = np.isnan(x)
        self.magnitude_ = np.array([_typical_magnitude(column) for column in x.T])
        z = self._unscaled(x)
        self.fill_ = np.array([np.median(c[~m]) if not m.all() else 0.0 for c, m in zip(z.T, missing.T, strict=True)])
        np.copyto(z, self.fill_, where=missing)
        self.mean_ = z.mean(axis=0)
        deviation = z.std(axis=0)
        self.scale_ = np.where(deviation > 1e-9, deviation, 1.0)
        self.indicator_ = np.flatnonzero(missing.any(axis=0)) if self.add_indicator else np.array([], dtype=np.int64)
        return self

    def transform(self, X: ArrayLike) -> NDArray[np.float64]:  # noqa: N803
        """Return the scaled columns, then the indicators: (n, columns + indicators)."""
        check_is_fitted(self)
        x = self._validate(X, reset=False)
        z = self._unscaled(x)
        np.copyto(z, self.fill_, where=np.isnan(x))
        z -= self.mean_
        z /= self.scale_
        return np.hstack([z, np.isnan(x[:, self.indicator_]).astype(np.float64)])

    def _unscaled(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return asinh(x / magnitude), within one array."""
        z = x / self.magnitude_
        return np.asarray(np.arcsinh(z, out=z))

    def _validate(self, X: ArrayLike, *, reset: bool) -> NDArray[np.float64]:  # noqa: N803
        x = validate_data(self, X, reset=reset, dtype=np.float64, ensure_all_finite="allow-nan")
        return np.asarray(x, dtype=np.float64)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags


def _typical_magnitude(column: NDArray[np.float64]) -> float:
    known = np.abs(column[~np.isnan(column) & (column != 0.0)])
    return float(np.median(known)) if known.size else 1.0


class EmptyToZero(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Put 0 in columns without any value in training; HistGradientBoosting cannot be fitted on them."""

    def fit(self, X: ArrayLike, y: Any = None) -> Self:  # noqa: ARG002, N803
        """Learn which columns are empty."""
        self.empty_ = np.isnan(self._validate(X, reset=True)).all(axis=0)
        return self

    def transform(self, X: ArrayLike) -> NDArray[np.float32]:  # noqa: N803
        """Return the columns: (n, columns)."""
        check_is_fitted(self)
        return np.where(self.empty_, np.float32(0.0), self._validate(X, reset=False))

    def _validate(self, X: ArrayLike, *, reset: bool) -> NDArray[np.float32]:  # noqa: N803
        x = validate_data(self, X, reset=reset, dtype=np.float32, ensure_all_finite="allow-nan")
        return np.asarray(x, dtype=np.float32)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags


class IncreasingLogistic(LogisticRegression):  # type: ignore[misc]
    """Logistic regression on one column whose probability never decreases in it.

    A rule ranks by its column. When the data of a period point the other way, the coefficient is set to a
    small positive number instead of turning the rule upside down.
    """

    smallest_coefficient = 1e-2

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: Any = None) -> Self:  # noqa: N803
        """Fit, then refuse a coefficient that is not positive.

        Raises:
            ValueError: `X` has more than one column.
        """
        super().fit(X, y, sample_weight)
        if self.coef_.shape != (1, 1):
            raise InputError(f"a rule ranks by one column, got {self.coef_.shape[1]}")
        if self.coef_[0, 0] < self.smallest_coefficient:
            base_rate = float(np.average(np.asarray(y) == self.classes_[1], weights=sample_weight))
            self.coef_[0, 0] = self.smallest_coefficient
            self.intercept_[0] = np.log(base_rate / (1.0 - base_rate))
        return self
