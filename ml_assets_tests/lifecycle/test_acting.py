"""What a team acts on is not learned from, and yet belongs to what later dates are compared with."""

import dataclasses
import math
from collections.abc import Iterator
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from ml_assets.lake import Lake, features_table, labels_table, outcomes_table, training_set_table
from ml_assets.learning.fit import fit_candidate
from ml_assets.learning.slices import described
from ml_assets.lifecycle.training import (
    TrainingSetSource,
    assemble_training_set,
    left_out,
    read_training_set,
    training_set_source,
)
from ml_assets.monitoring.drift import MEAN_LOG_ODDS, VOLUME, Finding, date_findings
from ml_assets.monitoring.outcomes import BATCH, outcomes_schema
from ml_assets.spec import SliceSpec, UseCase
from ml_assets_tests.learning.conftest import DAYS, FIRST_DAY, draw, small_usecase

TRAINED = FIRST_DAY + timedelta(days=DAYS - 1)
# Of each date the team acts on the decisions about the scarcest securities.
SHARE = 0.15


@pytest.fixture(scope="module")
def usecase(tmp_path_factory: pytest.TempPathFactory) -> UseCase:
    made = small_usecase(tmp_path_factory.mktemp("usecase"))
    gate = dataclasses.replace(
        made.gate, min_saved_per_day=-math.inf, slices=(SliceSpec("asset_class", "asset_class"),)
    )
    return dataclasses.replace(made, action=dataclasses.replace(made.action, taken=True), gate=gate)


def of_the_lists(usecase: UseCase, features: pa.Table) -> pa.Table:
    """The outcomes table of a team that acts on the scarcest securities of each date."""
    scarcity = features["scarcity"].to_numpy()
    day = np.array([str(one) for one in features["decision_date"].to_pylist()])
    least = {one: np.quantile(scarcity[day == one], 1 - SHARE) for one in np.unique(day)}
    n = features.num_rows
    columns = {
        "entity_id": features["entity_id"],
        "outcome_date": features["outcome_date"],
        "decision_time": features["decision_time"],
        "stage": pa.array([BATCH] * n),
        "on_list": pa.array(scarcity >= np.array([least[one] for one in day])),
    }
    schema = pa.schema([outcomes_schema(usecase).field(name) for name in columns])
    return pa.table(columns, schema=schema)


@pytest.fixture
def acting_lake(lake: Lake, usecase: UseCase) -> Lake:
    features, labels, _ = draw()
    known = pa.array([at.date() for at in labels["label_known_at"].to_pylist()], pa.date32())
    labels = labels.append_column("known_date", known)
    for table, rows, by in (
        (features_table(usecase), features, "decision_date"),
        (labels_table(usecase), labels, "known_date"),
        (outcomes_table(usecase), of_the_lists(usecase, features), "outcome_date"),
    ):
        lake.replace(table, rows, by, pc.unique(rows[by]).to_pylist())
    assemble_training_set(lake, usecase, TRAINED)
    return lake


def read(lake: Lake, usecase: UseCase) -> tuple[pa.Table, TrainingSetSource]:
    version = lake.version(training_set_table(usecase))
    assert version is not None
    rows = read_training_set(lake, usecase, TRAINED, for_models=True)
    return rows, training_set_source(lake, usecase, TRAINED, version)


def test_what_was_acted_on_is_left_out_and_found_again(acting_lake: Lake, usecase: UseCase) -> None:
    rows, source = read(acting_lake, usecase)
    acted = left_out(acting_lake, usecase, rows, source)
    assert acted is not None
    assert not {"label", "label_known_at"} & set(acted.column_names)
    all_of = draw()[0].filter(pc.is_in(draw()[0]["decision_time"], pc.unique(rows["decision_time"])))
    both = sorted([*rows["entity_id"].to_pylist(), *acted["entity_id"].to_pylist()])
    assert both == sorted(all_of["entity_id"].to_pylist())
    assert acted.num_rows == pytest.approx(SHARE * all_of.num_rows, rel=0.05)
    parts = {row["decision_time"]: row["part"] for row in rows.select(["decision_time", "part"]).to_pylist()}
    assert all(row["part"] == parts[row["decision_time"]] for row in acted.to_pylist())
    test = acted.filter(pc.equal(acted["part"].cast(pa.string()), "test"))
    assert test["slice__asset_class"].to_pylist() == test["asset_class"].to_pylist()


def test_a_team_that_does_not_act_leaves_nothing_out(acting_lake: Lake, usecase: UseCase) -> None:
    quiet = dataclasses.replace(usecase, action=dataclasses.replace(usecase.action, taken=False))
    assemble_training_set(acting_lake, quiet, TRAINED)
    assert left_out(acting_lake, quiet, *read(acting_lake, quiet)) is None


def quiet_date(usecase: UseCase, lake: Lake, acted: pa.Table | None, rows: pa.Table) -> Iterator[Finding]:
    """What is found on a date that is like those of the training set, by a model trained with this reference."""
    fitted = fit_candidate(usecase, usecase.candidates[1], rows, acted_on=acted)
    reference = fitted.scorer.manifest.reference
    assert reference is not None
    assert reference.drift is not None
    day: date = FIRST_DAY + timedelta(days=9)
    live = lake.read(features_table(usecase), where=pc.field("decision_date") == day)
    live = live.sort_by([("decision_time", "ascending"), ("entity_id", "ascending")])
    live = described(usecase, live, live.select(["entity_id", "decision_time", "attributes"]))
    live = live.append_column("probability", pa.array(fitted.scorer.score(live)))
    names, slots = fitted.scorer.manifest.features, [slot.name for slot in usecase.slots]
    yield from date_findings(usecase, names, reference.drift, day, live, {}, slots)


def test_a_quiet_date_of_a_team_that_acts_is_no_drift(acting_lake: Lake, usecase: UseCase) -> None:
    """Guards a reference of what nobody acted on: each live date, which has the riskiest too, looked riskier.

    In the rehearsal the mean log-odds drifted for half a year, and a person was asked each morning.
    """
    rows, source = read(acting_lake, usecase)
    acted = left_out(acting_lake, usecase, rows, source)

    def moved(found: list[Finding]) -> float:
        return next(one.moved or 0.0 for one in found if one.name == MEAN_LOG_ODDS)

    with_them, without = (list(quiet_date(usecase, acting_lake, one, rows)) for one in (acted, None))
    assert not [one for one in with_them if one.breached]
    assert abs(moved(with_them)) < 0.1
    assert moved(without) > 0.2
    volumes = [one for one in with_them if one.kind == VOLUME]
    assert [one.expected for one in volumes] == [one.value for one in volumes]
