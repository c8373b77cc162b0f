"""Make a registered model again from the recorded versions of its data, and compare."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from ml_assets.errors import StateError
from ml_assets.lake import Lake, training_set_table
from ml_assets.learning.fit import fit_candidate
from ml_assets.learning.frames import FeatureNames
from ml_assets.learning.scorer import Scorer
from ml_assets.learning.training_set import part_of
from ml_assets.learning.window import Window
from ml_assets.lifecycle.training import RECIPE, Recipe, as_learning, build_from, read_training_set, training_set_source
from ml_assets.registry import CandidateRun, ModelRegistry, ModelVersion
from ml_assets.spec import Candidate, UseCase

# Probabilities are exactly equal on the machine and with the libraries that trained the model. Another processor may
# add in another order, which changes the last digits.
TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True)
class Compared:
    """One thing that was made again: the recorded value, the new value, and whether they are the same."""

    what: str
    recorded: str
    made_again: str
    same: bool


@dataclass(frozen=True)
class Reproduction:
    """A version of a model beside itself, made again. `code` is the commit on record, `code_now` that of this run."""

    version: ModelVersion
    code: str
    code_now: str
    comparisons: tuple[Compared, ...]

    @property
    def same(self) -> bool:
        """Whether everything is the same as recorded."""
        return all(comparison.same for comparison in self.comparisons)


class CannotReproduceError(StateError):
    """The model cannot be made again with this code, or its record is not complete."""


def reproduce(
    lake: Lake, registry: ModelRegistry, usecase: UseCase, version: int, *, code_version: str, threads: int = 0
) -> Reproduction:
    """Build the training set of a version from the Delta versions on record, fit the model, and compare both.

    Rows and parameters must be equal, probabilities of the test window within `TOLERANCE`. A search is not repeated:
    the parameters that it found are recorded.

    Raises:
        LookupError: there is no such version.
        CannotReproduceError: the features or candidates of the code are others, or a table's version is gone.
    """
    registered = registry.version(usecase.name, version)
    run = registry.run(registered.run_id)
    scorer = Scorer.from_files(registry.download_model(registered.run_id), threads=threads)
    candidate = _candidate(usecase, run, scorer)
    training_date = date.fromisoformat(run.tags["training_date"])
    versions = json.loads(run.tags["data_versions"])
    try:
        stored = read_training_set(lake, usecase, training_date, versions[training_set_table(usecase)])
        source = training_set_source(lake, usecase, training_date, versions[training_set_table(usecase)])
        rebuilt = build_from(lake, usecase, training_date, source)
        recipe = msgspec.json.decode(registry.read_evidence(registered.run_id, RECIPE), type=Recipe)
    except (KeyError, FileNotFoundError, LookupError, OSError) as error:
        raise CannotReproduceError(
            f"version {version} of {usecase.name}: its data are not all there any more: {error}. Tables that models "
            "were trained on must not be vacuumed below their retention"
        ) from error
    learning = as_learning(usecase, training_date, source)
    fitted = fit_candidate(learning, candidate, rebuilt, threads=threads, parameters=recipe.parameters)
    return Reproduction(
        registered,
        code=run.tags.get("git_commit", ""),
        code_now=code_version,
        comparisons=(
            *_compare_rows(stored, rebuilt, run),
            *_compare_parameters(run, {**fitted.parameters, "seed": usecase.seed}),
            _compare_calibration(scorer, fitted.scorer),
            _compare_graphs(scorer, fitted.scorer),
            _compare_probabilities(scorer, fitted.scorer, part_of(stored, "test")),
        ),
    )


def _candidate(usecase: UseCase, run: CandidateRun, scorer: Scorer) -> Candidate:
    name, commit = run.tags["candidate"], run.tags.get("git_commit", "unknown")
    for candidate in usecase.candidates:
        if candidate.name == name:
            break
    else:
        raise CannotReproduceError(f"{usecase.name} has no candidate {name!r} now; check out commit {commit}")
    if scorer.manifest.features != FeatureNames.of(usecase.features):
        raise CannotReproduceError(
            f"{usecase.name}: the model reads other features than this code declares; check out commit {commit}"
        )
    return candidate


def _compare_rows(stored: pa.Table, rebuilt: pa.Table, run: CandidateRun) -> Iterator[Compared]:
    yield _equal("rows of the training set", f"{stored.num_rows:,}", f"{rebuilt.num_rows:,}")
    columns = [name for name in stored.column_names if name in rebuilt.column_names]
    differing = [name for name in columns if not _same_column(stored, rebuilt, name)]
    yield Compared(
        f"values of its {len(columns)} columns",
        "as stored",
        f"differ in {', '.join(differing)}" if differing else "as stored",
        not differing,
    )
    yield _equal("test window", run.tags["window_hash"], Window.of(part_of(rebuilt, "test")).hash)


def _same_column(stored: pa.Table, rebuilt: pa.Table, name: str) -> bool:
    before, after = stored[name].combine_chunks(), rebuilt[name].combine_chunks().cast(stored[name].type)
    # Not by `equals`, for which NaN is no NaN.
    if pa.types.is_floating(before.type):
        first, second = (column.to_numpy(zero_copy_only=False) for column in (before, after))
        return bool(np.array_equal(first, second, equal_nan=True))
    return bool(before.equals(after))


def _compare_parameters(run: CandidateRun, parameters: dict[str, Any]) -> Iterator[Compared]:
    # The number of threads is the machine's; the models do not depend on it.
    asked = {name: str(value) for name, value in parameters.items() if name != "n_jobs"}
    differing = {name: value for name, value in asked.items() if run.params.get(name) != value}
    yield Compared(
        f"{len(asked)} parameters",
        ", ".join(f"{name}={run.params.get(name)}" for name in differing) or "as logged",
        ", ".join(f"{name}={value}" for name, value in differing.items()) or "as logged",
        not differing,
    )


def _compare_calibration(before: Scorer, after: Scorer) -> Compared:
    return _equal("calibration", before.manifest.calibration.to_json(), after.manifest.calibration.to_json())


def _compare_graphs(before: Scorer, after: Scorer) -> Compared:
    """Compare the ONNX graphs by what they compute with; names of nodes and producer may differ."""
    import onnx

    def weights(model: bytes) -> list[bytes]:
        graph = onnx.load_from_string(model).graph
        attributes = [a.SerializeToString() for node in graph.node for a in node.attribute]
        return sorted([*attributes, *(tensor.raw_data or tensor.SerializeToString() for tensor in graph.initializer)])

    same = weights(before.model) == weights(after.model)
    return Compared("weights of the ONNX model", "as stored", "as stored" if same else "others", same)


def _compare_probabilities(before: Scorer, after: Scorer, test: pa.Table) -> Compared:
    difference = float(np.max(np.abs(before.score(test) - after.score(test)), initial=0.0))
    return Compared(
        f"probabilities of {test.num_rows:,} test decisions",
        f"differ by at most {TOLERANCE:.0e}",
        "equal to the last bit" if difference == 0 else f"differ by up to {difference:.1e}",
        difference <= TOLERANCE,
    )


def _equal(what: str, recorded: str, made_again: str) -> Compared:
    return Compared(what, recorded, made_again, recorded == made_again)
