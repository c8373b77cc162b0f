"""What a person is told before and after a run."""

import dataclasses
from datetime import date
from typing import Any, cast

import pyarrow as pa
import pytest

from ml_assets.database.connect import connect
from ml_assets.lake import Lake, features_table
from ml_assets.lifecycle.outcome import _trained_on, came_out, refuse_idle
from ml_assets.usecases import discover

USECASE = next(usecase for usecase in discover() if usecase.name == "cns_fails")
DAYS = [date(2020, 7, 1), date(2020, 7, 2)]


NONE = cast("Any", None)


def test_to_ingest_a_topic_of_which_nothing_has_landed_is_refused(lake: Lake) -> None:
    """Guards 'done' for a topic that does not exist."""
    with pytest.raises(LookupError, match="nothing has landed of cns_fails"):
        refuse_idle(lake, NONE, USECASE, "ingest", DAYS)


def test_to_score_dates_without_features_is_refused_with_what_comes_first(lake: Lake) -> None:
    """Guards 'done' for dates after the end of the data."""
    with pytest.raises(LookupError, match="ml-assets ingest cns_fails --from 2020-07-01 --to 2020-07-02"):
        refuse_idle(lake, NONE, USECASE, "score", DAYS)


def test_an_ingest_that_made_no_decision_says_so(lake: Lake) -> None:
    said = "\n".join(came_out(lake, NONE, NONE, USECASE, "ingest", DAYS))
    assert "0 rows on 0 of 2 dates" in said
    assert "No decision was made" in said


def test_an_ingest_names_the_topic_of_which_nothing_has_ever_landed(lake: Lake) -> None:
    """Guards 'done' where one of several topics does not exist."""
    said = "\n".join(came_out(lake, NONE, NONE, USECASE, "ingest", DAYS))
    assert "Nothing has ever landed of topic cns_fails: is there such a topic on the broker?" in said


def test_a_score_names_the_dates_that_have_no_features(application_url: str, lake: Lake) -> None:
    """Guards 'done' for a range of dates that reaches beyond the end of the data."""
    usecase = dataclasses.replace(USECASE, name="scored_beyond_the_end")
    rows = pa.table({"decision_date": pa.array([DAYS[0]], pa.date32()), "entity_id": ["A"]})
    lake.replace(features_table(usecase), rows, "decision_date", [DAYS[0]])
    engine = connect(application_url)
    said = "\n".join(came_out(lake, NONE, engine, usecase, "score", DAYS))
    engine.dispose()
    assert "1 of 2 dates, 2020-07-02 to 2020-07-02, have no features, so nothing was scored there" in said


def test_a_retraining_tells_what_is_odd_about_what_it_learned_from() -> None:
    """Guards outcomes before their decision, telling values and missing dates that only the Dagster UI shows."""
    told = [
        {
            "fewer dates than asked": "train: 288 of 300",
            "had happened when decided": "2 of 40 decisions with the outcome, 5.0%; at most 10%",
            "values that alone tell the outcome": "state = withdrawn: 0.959 of 415",
        }
    ]
    assert list(_trained_on(told)) == [f"  {name}: {said}" for name, said in told[0].items()]
    told[0] |= {"fewer dates than asked": "no", "values that alone tell the outcome": "none"}
    assert [line.split(":")[0] for line in _trained_on(told)] == ["  had happened when decided"]


def test_an_ingest_counts_what_is_labelled_what_waits_and_what_never_can_be(lake: Lake) -> None:
    """Guards 'done' over decisions that never get a label."""
    told = [
        {"impossible": 3, "waits for": "topic cns_fails, partition 0: nothing has landed"},
        {"decisions": 1500, "labelled": 1200, "waiting": 290, "without_outcome": 10},
    ]
    said = "\n".join(came_out(lake, NONE, NONE, USECASE, "ingest", DAYS, told=told))
    assert "3 decisions were left out: they can never be labelled" in said
    assert "Of 1,500 decisions whose outcome is due on these dates 1,200 are labelled, 290 wait, 10 have no out" in said
    assert "waits for topic cns_fails, partition 0: nothing has landed" in said
