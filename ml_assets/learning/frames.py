"""The columns that every model reads: one conversion for fitting, proving the export and scoring.

Numbers are float32, since ONNX trees compare in float32 and a model fitted on the same rounded values agrees
with its export exactly. Categories are strings and a missing one is the empty string, since ONNX has no
missing string.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Self

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ml_assets.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from ml_assets.spec import Feature

MISSING_CATEGORY = ""
# A column of texts of which there are few: each is kept once.
CODED = pa.dictionary(pa.int32(), pa.string())


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
    if not isinstance(column, pa.ChunkedArray):
        column = pa.chunked_array([pa.array(column, type=pa.string(), from_pandas=True)])
    return texts_of(column, MISSING_CATEGORY)


def texts_of(column: pa.ChunkedArray, missing: str | None = None) -> NDArray[np.object_]:
    """Return the texts (n,), each distinct one kept once, with something for null.

    By way of the distinct ones, which is several times faster than one by one. (`to_numpy` of a coded column gives its
    last text for null.)
    """
    distinct, codes = coded(column)
    return np.array([*distinct, missing], dtype=object)[codes]


def coded(column: pa.ChunkedArray) -> tuple[list[str], NDArray[np.int32]]:
    """Return the distinct texts of a column, and which of them each row has (n,); -1 for null."""
    if not pa.types.is_dictionary(column.type):
        column = pc.dictionary_encode(column.cast(pa.string()))
    one = column.unify_dictionaries()
    texts = one.chunk(0).dictionary.to_pylist() if one.num_chunks else []
    codes = [chunk.indices.fill_null(-1).to_numpy(zero_copy_only=False) for chunk in one.chunks]
    return texts, np.concatenate(codes) if codes else np.empty(0, dtype=np.int32)


def numbered(values: NDArray[Any] | pa.ChunkedArray) -> tuple[list[str], NDArray[np.int64]]:
    """Return the distinct texts (n,) in order, and the number of the text of each row: (n,)."""
    if not isinstance(values, pa.ChunkedArray):
        values = pa.chunked_array([pa.array(values)])
    texts, codes = coded(values)
    order = np.argsort(np.array(texts, dtype=str))
    number = np.empty(len(order), dtype=np.int64)
    number[order] = np.arange(len(order))
    return [texts[at] for at in order], number[codes]
