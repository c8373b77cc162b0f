"""The columns that every model reads: one conversion for fitting, proving the export and scoring.

Numbers are float32, since ONNX trees compare in float32 and a model fitted on the same rounded values agrees
with its export exactly. Categories are strings and a missing one is the empty string, since ONNX has no
missing string.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Self

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ml_assets.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from ml_assets.spec import Feature

MISSING_CATEGORY = ""


class FeatureNames(msgspec.Struct, frozen=True):
    """The names of a model's features, numeric and categorical, each in the order of the model's inputs."""

    numeric: tuple[str, ...]
    categorical: tuple[str, ...]

    @classmethod
    def of(cls, features: Iterable[Feature]) -> Self:
        """Return the names of a use case's features."""
        features = tuple(features)
        return cls(
            tuple(f.name for f in features if f.kind == "numeric"),
            tuple(f.name for f in features if f.kind == "categorical"),
        )

    @property
    def all(self) -> tuple[str, ...]:
        """All names, the numeric ones first."""
        return self.numeric + self.categorical


class MissingColumnsError(InputError):
    """Rows lack features that the model reads."""


def model_arrays(names: FeatureNames, rows: pd.DataFrame | pa.Table) -> tuple[NDArray[np.float32], NDArray[np.object_]]:
    """Return numbers (n, numeric) and categories (n, categorical); what float32 cannot hold is missing.

    Raises:
        MissingColumnsError: a feature is not among the columns of `rows`.
    """
    columns = rows.column_names if isinstance(rows, pa.Table) else list(rows.columns)
    if absent := sorted(set(names.all) - set(columns)):
        raise MissingColumnsError(
            f"the rows lack {len(absent)} of the model's {len(names.all)} features: {', '.join(absent)}; "
            "materialize the features again with the model's version of the feature SQL"
        )
    numbers = np.empty((len(rows), len(names.numeric)), dtype=np.float32)
    with np.errstate(over="ignore"):
        for i, name in enumerate(names.numeric):
            numbers[:, i] = _numbers(rows[name])
    numbers[np.isinf(numbers)] = np.nan
    categories = np.empty((len(rows), len(names.categorical)), dtype=object)
    for i, name in enumerate(names.categorical):
        categories[:, i] = _categories(rows[name])
    return numbers, categories


def model_frame(names: FeatureNames, rows: pd.DataFrame | pa.Table) -> pd.DataFrame:
    """Return the features as the frame that pipelines are fitted on: float32 and object columns, in order."""
    import pandas as pd

    numbers, categories = model_arrays(names, rows)
    frame = pd.DataFrame(numbers, columns=list(names.numeric))
    for i, name in enumerate(names.categorical):
        frame[name] = pd.Series(categories[:, i], dtype=object)
    return frame


def _numbers(column: pd.Series | pa.ChunkedArray) -> NDArray[np.float64]:
    if isinstance(column, pa.ChunkedArray):
        return np.asarray(column.cast(pa.float64()).to_numpy())
    return np.asarray(column.to_numpy(dtype=np.float64, na_value=np.nan))


def _categories(column: pd.Series | pa.ChunkedArray) -> NDArray[np.object_]:
    """Return the strings; by way of the distinct ones, which is several times faster than one by one."""
    if not isinstance(column, pa.ChunkedArray):
        column = pa.chunked_array([pa.array(column, type=pa.string(), from_pandas=True)])
    coded = column.cast(pa.string()).fill_null(MISSING_CATEGORY).combine_chunks().dictionary_encode()
    if isinstance(coded, pa.ChunkedArray):
        coded = coded.combine_chunks()
    distinct = np.array(coded.dictionary.to_pylist(), dtype=object)
    codes = coded.indices.to_numpy(zero_copy_only=False)
    return distinct[codes] if len(distinct) else np.empty(len(codes), dtype=object)
