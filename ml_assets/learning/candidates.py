"""Candidates: the kinds of model that a use case can list, each as a `ml_assets.spec.Candidate`.

Every candidate is a scikit-learn pipeline over a feature frame (numeric columns, string columns) that exports
to ONNX; `learning.export` proves it. scikit-learn and LightGBM are imported when a candidate is built.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ml_assets.errors import InputError
from ml_assets.spec import Candidate, Feature, SearchSpec

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator
    from sklearn.compose import ColumnTransformer


def rule(column: str, *, description: str, name: str = "rule") -> Candidate:
    """Return the business rule that ranks by one numeric feature, the highest value first.

    The probability always increases with the column, whatever the data say; a missing value ranks as the
    median.

    Raises:
        ValueError: (when built) `column` is not a numeric feature of the use case.
    """

    def build(features: tuple[Feature, ...], seed: int) -> BaseEstimator:
        from sklearn.compose import ColumnTransformer
        from sklearn.pipeline import make_pipeline

        from ml_assets.learning.estimators import AsinhScaler, IncreasingLogistic

        numeric, _ = _by_kind(features)
        if column not in numeric:
            raise InputError(f"rule {name!r} ranks by {column!r}, which is not one of the numeric features {numeric}")
        only = ColumnTransformer([("column", AsinhScaler(add_indicator=False), [column])])
        return make_pipeline(only, IncreasingLogistic(random_state=seed))

    return Candidate(name, description, build, is_rule=True)


def logistic(
    *,
    C: float = 1.0,  # noqa: N803 (scikit-learn's name)
    name: str = "logistic",
    search: SearchSpec | None = None,
) -> Candidate:
    """Return a logistic regression over scaled numbers, missing indicators and one-hot categories."""

    def build(features: tuple[Feature, ...], seed: int) -> BaseEstimator:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import OneHotEncoder

        from ml_assets.learning.estimators import AsinhScaler

        prepare = _prepare(features, AsinhScaler(), OneHotEncoder(handle_unknown="ignore", sparse_output=False))
        return make_pipeline(prepare, LogisticRegression(C=C, max_iter=1000, random_state=seed))

    return Candidate(name, f"Logistic regression, L2 penalty, C={C:g}", build, search=search)


def lightgbm(*, name: str = "lightgbm", search: SearchSpec | None = None, **params: Any) -> Candidate:
    """Return gradient boosting by LightGBM; `params` of `LGBMClassifier` override the defaults here."""

    def build(features: tuple[Feature, ...], seed: int) -> BaseEstimator:
        from lightgbm import LGBMClassifier
        from sklearn.pipeline import make_pipeline

        defaults: dict[str, Any] = {
            "n_estimators": 300,
            "learning_rate": 0.05,
            "num_leaves": 31,
            "min_child_samples": 100,
            "subsample": 0.8,
            "subsample_freq": 1,
            "colsample_bytree": 0.8,
            "reg_lambda": 1.0,
            "n_jobs": 1,  # `fit_candidate` sets it to the threads it is given
            # Without these two the result depends on the number of threads.
            "deterministic": True,
            "force_row_wise": True,
            "verbosity": -1,
            "random_state": seed,
        }
        return make_pipeline(_prepare(features, "passthrough", _ordinal()), LGBMClassifier(**(defaults | params)))

    return Candidate(name, "Gradient-boosted trees (LightGBM)", build, search=search)


def hist_gradient_boosting(
    *, name: str = "hist_gradient_boosting", search: SearchSpec | None = None, **params: Any
) -> Candidate:
    """Return scikit-learn's histogram gradient boosting; `params` override the defaults here."""

    def build(features: tuple[Feature, ...], seed: int) -> BaseEstimator:
        from sklearn.ensemble import HistGradientBoostingClassifier
        from sklearn.pipeline import make_pipeline

        from ml_assets.learning.estimators import EmptyToZero

        defaults: dict[str, Any] = {
            "max_iter": 200,
            "learning_rate": 0.06,
            "max_leaf_nodes": 31,
            "min_samples_leaf": 100,
            "l2_regularization": 1.0,
            "early_stopping": False,
            "random_state": seed,
        }
        model = HistGradientBoostingClassifier(**(defaults | params))
        return make_pipeline(_prepare(features, EmptyToZero(), _ordinal()), model)

    return Candidate(name, "Gradient-boosted trees (scikit-learn)", build, search=search)


def _by_kind(features: tuple[Feature, ...]) -> tuple[list[str], list[str]]:
    """Return the names of the numeric and of the categorical features."""
    numeric = [f.name for f in features if f.kind == "numeric"]
    return numeric, [f.name for f in features if f.kind == "categorical"]


def _prepare(features: tuple[Feature, ...], for_numeric: Any, for_categorical: Any) -> ColumnTransformer:
    from sklearn.compose import ColumnTransformer

    numeric, categorical = _by_kind(features)
    parts = [("numeric", for_numeric, numeric), ("categorical", for_categorical, categorical)]
    return ColumnTransformer([part for part in parts if part[2]])


def _ordinal() -> Any:
    """Return an encoder to whole numbers; a category not seen in training becomes -1.

    They are float32, as the numbers beside them are: else the matrix of both would be float64, and twice as large.
    """
    import numpy as np
    from sklearn.preprocessing import OrdinalEncoder

    return OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, dtype=np.float32)
