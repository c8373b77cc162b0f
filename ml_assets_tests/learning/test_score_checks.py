"""Scores against the calibration window of their model: what is whole passes, what is broken is refused by name."""

import dataclasses
from collections.abc import Callable
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from ml_assets.learning.fit import FittedCandidate, fit_candidate
from ml_assets.learning.reference import reference_of
from ml_assets.learning.score_checks import DateVerdict, judge_batch, refusal
from ml_assets.learning.training_set import part_of
from ml_assets.spec import BatchSpec, UseCase

SPEC = BatchSpec()


@pytest.fixture(scope="module")
def model(usecase: UseCase, training_set: pa.Table) -> FittedCandidate:
    return fit_candidate(usecase, usecase.candidates[1], training_set)


def verdicts(model: FittedCandidate, rows: pa.Table, spec: BatchSpec = SPEC) -> list[DateVerdict]:
    manifest = model.scorer.manifest
    return judge_batch(spec, manifest.features, manifest.reference, rows, model.scorer.score(rows))


def failed(judged: list[DateVerdict]) -> set[str]:
    return {condition.name for one in judged for condition in one.verdict.failures}


def filled(rows: pa.Table, name: str, value: object) -> pa.Table:
    at = rows.schema.get_field_index(name)
    return rows.set_column(at, rows.schema.field(at), pa.array([value] * rows.num_rows, rows.schema.field(at).type))


def test_days_that_are_whole_pass(model: FittedCandidate, training_set: pa.Table) -> None:
    for part in ("train", "calibration", "test"):
        judged = verdicts(model, part_of(training_set, part))
        assert failed(judged) == set()
        assert all(one.verdict.conditions for one in judged)


@pytest.mark.parametrize(
    ("break_it", "broken"),
    [
        (lambda rows: filled(rows, "scarcity", None), {"missing_features"}),
        (lambda rows: filled(rows, "settlement_place", "NOWHERE"), {"unknown_categories"}),
        (lambda rows: filled(rows, "settlement_place", None), {"missing_features"}),
        (lambda rows: filled(rows, "scarcity", 6.0), {"score_psi", "mean_probability"}),
        (lambda rows: filled(rows, "scarcity", -9.0), {"score_psi", "mean_probability"}),
    ],
    ids=["a feature is empty", "categories never seen", "a category is empty", "too high", "too low"],
)
def test_each_condition_is_seen_failing(
    model: FittedCandidate, training_set: pa.Table, break_it: Callable[[pa.Table], pa.Table], broken: set[str]
) -> None:
    assert broken <= failed(verdicts(model, break_it(part_of(training_set, "test"))))


def test_one_broken_date_does_not_hide_among_many(model: FittedCandidate, training_set: pa.Table) -> None:
    """Guards a backfill: the share over all dates would be within its limit."""
    test = part_of(training_set, "test")
    days = sorted(set(test["decision_date"].to_pylist()))
    last = pc.equal(test["decision_date"], days[-1])
    mixed = pa.concat_tables([test.filter(pc.invert(last)), filled(test.filter(last), "settlement_place", "NOWHERE")])
    judged = verdicts(model, mixed)
    assert [one.decision_date for one in judged if not one.verdict.passed] == [days[-1]]
    said = refusal("small_fails", judged)
    assert f"the scores of {days[-1]} (250 decisions) are refused; nothing was published" in said
    assert "unknown_categories 1, the limit is <= 0.2" in said
    assert f'ml-assets score small_fails --date {days[-1]} --despite "the reason"' in said


def test_a_date_with_one_slot_so_far_is_held_against_that_slot(model: FittedCandidate, training_set: pa.Table) -> None:
    """Guards the morning: its decisions alone are not spread as those of a whole day."""
    names, rng = model.scorer.manifest.features, np.random.default_rng(1)
    train, calibration, test = (part_of(training_set, part) for part in ("train", "calibration", "test"))

    def by_slot(rows: pa.Table) -> np.ndarray:
        late = rows["slot"].to_numpy() == "evening"
        return np.where(late, rng.uniform(0.5, 0.9, len(rows)), rng.uniform(0, 0.1, len(rows)))

    reference = reference_of(names, train, calibration, by_slot(calibration))
    for slot in ("morning", "evening"):
        rows = test.filter(pc.equal(test["slot"], slot))
        assert failed(judge_batch(SPEC, names, reference, rows, by_slot(rows))) == set()
    renamed = filled(rows, "slot", "another")
    assert "score_psi" in failed(judge_batch(SPEC, names, reference, renamed, by_slot(rows)))


def test_a_few_decisions_and_older_models_are_not_judged_and_it_is_said(
    model: FittedCandidate, training_set: pa.Table
) -> None:
    few = filled(part_of(training_set, "test").slice(0, 99), "scarcity", None)
    (one,) = verdicts(model, few)
    assert (one.verdict.passed, one.why) == (True, "fewer than 100 decisions")
    whole = part_of(training_set, "test").slice(0, 250)
    names = model.scorer.manifest.features
    (old,) = judge_batch(SPEC, names, None, whole, model.scorer.score(whole))
    assert old.verdict.conditions == ()
    assert "retrain" in old.why


def test_probabilities_that_are_no_numbers_are_refused(model: FittedCandidate, training_set: pa.Table) -> None:
    rows = part_of(training_set, "test").slice(0, 250)
    manifest = model.scorer.manifest
    (one,) = judge_batch(SPEC, manifest.features, manifest.reference, rows, np.full(250, np.nan))
    assert "mean_probability" in {c.name for c in one.verdict.failures}


def test_limits_are_those_of_the_use_case(model: FittedCandidate, training_set: pa.Table) -> None:
    strict = dataclasses.replace(SPEC, max_psi=0.0)
    assert failed(verdicts(model, part_of(training_set, "test"), strict)) == {"score_psi"}


def test_the_reference_is_kept_with_the_model(model: FittedCandidate, training_set: pa.Table) -> None:
    reference = model.scorer.manifest.reference
    calibration = part_of(training_set, "calibration")
    assert reference is not None
    assert reference.whole.rows == calibration.num_rows == sum(part.rows for part in reference.slots.values())
    assert reference.whole.missing["empty"] == 1
    assert reference.categories["settlement_place"] == ("CLEARSTREAM", "EUROCLEAR", "T2S")
    assert max(calibration["decision_date"].to_pylist()) < date(2024, 2, 1)
