"""Drift: what moves is found with its size and its cause, what is as on other days is none, and nothing is ever NaN."""

import dataclasses
import math
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_assets.learning.drift_reference import DriftReference, drift_reference
from ml_assets.learning.fit import fit_candidate
from ml_assets.learning.frames import FeatureNames
from ml_assets.learning.reasons import Explainer
from ml_assets.learning.scorer import Scorer
from ml_assets.learning.stability import (
    expected_by_chance,
    group_edges,
    jensen_shannon,
    largest_by_chance,
    shares_of,
    stability_index,
)
from ml_assets.monitoring.drift import (
    DRIFT_SCHEMA,
    Finding,
    date_findings,
    drift_table,
    feed_findings,
    group_findings,
    kind_of_day,
    whole_finding,
)
from ml_assets.spec import DriftSpec, MonitoringSpec, UseCase
from ml_assets_tests.learning.conftest import draw, explained, small_training_set, small_usecase

NAMES = FeatureNames(("amount", "rate"), ("country",))
FIRST = date(2026, 1, 5)
counts = st.lists(st.integers(0, 500), min_size=2, max_size=12)


def decisions(days: int, per_day: int = 300, seed: int = 0, first: date = FIRST) -> pa.Table:
    """Decisions of so many days on end, with one slot; amounts of Mondays are ten times as high."""
    rng = np.random.default_rng(seed)
    n = days * per_day
    dates = [first + timedelta(days=i // per_day) for i in range(n)]
    monday = np.array([day.weekday() == 0 for day in dates])
    return pa.table(
        {
            "decision_date": pa.array(dates, pa.date32()),
            "slot": ["evening"] * n,
            "part": ["test"] * n,
            "amount": np.exp(rng.normal(5, 1, n)) * np.where(monday, 10, 1),
            "rate": pa.array(np.where(rng.random(n) < 0.1, np.nan, rng.beta(1, 8, n)), from_pandas=True),
            "country": rng.choice(["DE", "FR", "NL"], n, p=[0.6, 0.3, 0.1]),
            "slice__market": rng.choice(["X", "Y"], n),
        }
    )


def scored(rows: pa.Table) -> np.ndarray:
    """A score that follows the rate."""
    rate = np.nan_to_num(rows["rate"].to_numpy(zero_copy_only=False), nan=0.1)
    return np.clip(rate, 0.001, 0.999)


@pytest.fixture(scope="module")
def usecase(tmp_path_factory: pytest.TempPathFactory) -> UseCase:
    return small_usecase(tmp_path_factory.mktemp("drift"))


@pytest.fixture(scope="module")
def reference() -> DriftReference:
    return drift_reference(NAMES, decisions(28), scored)


def findings(
    usecase: UseCase, reference: DriftReference, rows: pa.Table, day: date, decided: tuple[str, ...] = ("evening",)
) -> dict[tuple[str, str, str], Finding]:
    if "probability" not in rows.column_names:
        rows = rows.append_column("probability", pa.array(scored(rows)))
    return {one.key: one for one in date_findings(usecase, NAMES, reference, day, rows, {}, decided)}


def changed(rows: pa.Table, name: str, change: Callable[[Any], Any]) -> pa.Table:
    """Rows with one column replaced."""
    return rows.set_column(rows.column_names.index(name), name, change(rows[name]))


def test_a_day_like_the_others_is_no_drift_and_neither_is_another_monday(usecase, reference):
    """Guards against limits that do not know the weekday: each Monday differs far from the whole."""
    for offset in (28, 29):
        day = FIRST + timedelta(days=offset)
        found = findings(usecase, reference, decisions(1, seed=9, first=day), day)
        assert not [one for one in found.values() if one.breached], day
    monday = FIRST + timedelta(days=28)
    assert (
        findings(usecase, reference, decisions(1, seed=9, first=monday), monday)["feature", "amount", "psi"].value > 1
    )
    tuesday = monday + timedelta(days=1)
    as_monday = decisions(1, seed=9, first=monday)
    assert findings(usecase, reference, as_monday, tuesday)["feature", "amount", "psi"].breached


@pytest.mark.parametrize("days", [7, 14])
def test_a_model_of_few_days_does_not_know_the_weekday(usecase, days):
    """Guards alarms after a retraining on the week since a change: of one Tuesday it is unknown how Tuesdays differ."""
    few = drift_reference(NAMES, decisions(days), scored)
    far = max(few.features["amount"].psi)
    assert far > 1, "its Mondays"
    for offset in range(days, days + 5):
        day = FIRST + timedelta(days=offset)
        found = findings(usecase, few, decisions(1, seed=9, first=day), day)
        assert not [one for one in found.values() if one.breached], day
        assert found["feature", "amount", "psi"].high > usecase.monitoring.drift.margin * far


def test_a_group_of_most_decisions_is_not_judged_beside_all_of_them(usecase):
    """Guards a stress that is told three times: of all decisions, of those that match, and of those in time."""
    usecase = dataclasses.replace(usecase, monitoring=MonitoringSpec(drift=DriftSpec(groups=("late",))))
    n = 2000
    rows = pa.table(
        {
            "outcome_date": pa.array([FIRST] * n, pa.date32()),
            "probability": np.full(n, 0.05),
            "label": (np.arange(n) % 5 == 0).astype(np.int8),
            "late": np.where(np.arange(n) % 40 == 0, 1.0, 0.0),
        }
    )
    found = {one.name: one for one in group_findings(usecase, rows)}
    assert set(found) == {"late 0", "late 1"}
    assert found["late 0"].value > 3
    assert [found[name].judged for name in ("late 0", "late 1")] == [False, True]


@pytest.mark.parametrize(
    ("name", "change", "measure", "said"),
    [
        ("rate", lambda c: pc.multiply(c, 3.0), "psi", "or more: 9"),
        ("rate", lambda c: pa.nulls(len(c), pa.float64()), "missing", "100.0% of the values are missing"),
        ("rate", lambda c: pa.array(np.full(len(c), 0.05)), "psi", "every value is in one group"),
        ("country", lambda c: pc.if_else(pc.equal(c, "DE"), "UA", c), "new categories", "of the values are new"),
        ("country", lambda c: pa.array(["DE"] * len(c)), "psi", "every value is in one group, DE"),
    ],
    ids=["scaled", "empty", "constant number", "new category", "constant category"],
)
def test_what_breaks_is_found_and_said(usecase, reference, name, change, measure, said):
    day = FIRST + timedelta(days=29)
    found = findings(usecase, reference, changed(decisions(1, seed=3, first=day), name, change), day)
    one = found["feature", name, measure]
    assert one.breached, one
    assert said in one.why
    assert not [other for other in found.values() if other.breached and other.kind == "feature" and other.name != name]


def test_a_column_that_is_not_there_is_a_finding_at_once(usecase, reference):
    day = FIRST + timedelta(days=29)
    rows = decisions(1, seed=3, first=day)
    rows = rows.append_column("probability", pa.array(scored(rows))).drop_columns(["amount", "country"])
    found = findings(usecase, reference, rows, day)
    for name in ("amount", "country"):
        one = found["feature", name, "missing"]
        assert one.breached
        assert one.at_once
        assert "the column is not there" in one.why
    table = drift_table(usecase, day, found.values(), []).to_pylist()
    assert {row["name"] for row in table if row["drifted"]} == {"amount", "country"}


def test_few_decisions_are_shown_and_not_judged(usecase, reference):
    day = FIRST + timedelta(days=29)
    found = findings(usecase, reference, decisions(1, per_day=40, first=day), day)
    one = found["feature", "amount", "psi"]
    assert one.value is not None
    assert not one.judged
    assert one.why.startswith("fewer than 100 decisions")
    assert found["volume", "evening", "decisions"].breached, "that they are few is itself a finding"
    nothing = findings(usecase, reference, decisions(1, first=day).slice(0, 0), day)
    assert [(one.key, one.at_once) for one in nothing.values()] == [(("volume", "evening", "decisions"), True)]
    assert not findings(usecase, reference, decisions(1, first=day).slice(0, 0), day, decided=())


def test_it_is_drift_on_the_second_of_three_days(usecase):
    one = Finding("feature", "a", "psi", 1.0, 0.0, None, 0.1, 500, True, True, "")
    days = [FIRST + timedelta(days=n) for n in range(4)]
    earlier: list[dict[str, Any]] = []
    said = []
    for day, breached in zip(days, [True, False, True, False], strict=True):
        table = drift_table(usecase, day, [dataclasses.replace(one, breached=breached)], earlier).to_pylist()
        said.append(table[0]["drifted"])
        earlier += table
    assert said == [False, False, True, False]


def test_a_month_end_is_compared_with_month_ends(usecase):
    assert kind_of_day(date(2026, 1, 30), usecase.calendar) == "month end", "the 31st is a Saturday"
    assert kind_of_day(date(2026, 1, 29), usecase.calendar) == "Thursday"
    reference = drift_reference(NAMES, decisions(14), scored)
    day = date(2026, 1, 30)
    found = findings(usecase, reference, decisions(1, first=day), day)
    assert found["feature", "rate", "psi"].why.startswith("it is a month end, and the reference has none")
    assert {one.measure for one in found.values() if one.judged} == {"missing", "new categories"}


def test_a_cause_that_moves_is_named_in_log_odds(usecase):
    """The unit that matters: what counterparties add to the mean log-odds, not that a column differs."""
    usecase = explained(usecase)
    logistic = next(c for c in usecase.candidates if c.name == "logistic")
    scorer: Scorer = fit_candidate(usecase, logistic, small_training_set(usecase)).scorer
    reference = scorer.manifest.reference.drift
    assert set(reference.causes) == {"LACK", "CLAC", "MONY", "OTHER"}
    features, _, _ = draw(seed=11)
    day = features["decision_date"][-1].as_py()
    rows = features.filter(pc.equal(features["decision_date"], day))
    worse = changed(rows, "fail_rate_20d", lambda c: pc.add(c, 0.3))

    def causes_of(rows: pa.Table) -> list[Finding]:
        explainer = Explainer(usecase, scorer)
        causes = {
            slot: explainer.mean_contributions(rows.filter(pc.equal(rows["slot"], slot)))
            for slot in pc.unique(rows["slot"]).to_pylist()
        }
        rows = rows.append_column("probability", pa.array(scorer.score(rows)))
        found = date_findings(usecase, scorer.manifest.features, reference, day, rows, causes, [])
        return [one for one in found if one.kind == "cause"]

    assert not [one.name for one in causes_of(rows) if one.breached]
    (moved,) = [one for one in causes_of(worse) if one.breached]
    assert moved.name == "CLAC"
    assert moved.moved > 1
    assert moved.why.startswith("the mean log-odds have moved by +")


def test_a_group_that_fails_more_than_its_probabilities_say_is_named(usecase):
    drift = DriftSpec(groups=("attributes.counterparty",))
    usecase = dataclasses.replace(usecase, monitoring=MonitoringSpec(drift=drift))
    rng = np.random.default_rng(0)
    n = 6000
    who = rng.integers(0, 30, n)
    p = np.full(n, 0.06)
    true = np.where(who == 4, 0.35, p)
    rows = pa.table(
        {
            "outcome_date": pa.array([FIRST + timedelta(days=int(i % 2)) for i in range(n)], pa.date32()),
            "probability": p,
            "label": (rng.random(n) < true).astype(np.int8),
            "attributes.counterparty": [f"C{one}" for one in who],
        }
    )
    found = group_findings(usecase, rows)
    assert [one.name for one in found if one.breached] == ["counterparty C4"]
    assert found[0].at_once
    assert " of " in found[0].why
    fair = changed(rows, "label", lambda _: pa.array((rng.random(n) < p).astype(np.int8)))
    assert not [one for one in group_findings(usecase, fair) if one.breached]


@pytest.mark.parametrize(("name", "drifted"), [("amount", False), ("rate", True)])
def test_a_feature_that_moves_no_prediction_is_shown_and_no_alarm(usecase, reference, name, drifted):
    """Guards alarms of a year on which nothing changed: the rates of thirty counterparties moved between groups."""
    earlier: list[dict[str, Any]] = []
    for offset in (29, 30):
        day = FIRST + timedelta(days=offset)
        rows = changed(decisions(1, seed=offset, first=day), name, lambda column: pc.multiply(column, 4.0))
        found = drift_table(usecase, day, findings(usecase, reference, rows, day).values(), earlier).to_pylist()
        earlier = [*earlier, *found]
    (one,) = [row for row in found if (row["kind"], row["name"], row["measure"]) == ("feature", name, "psi")]
    assert one["breached"]
    assert (abs(one["moved"]) > usecase.monitoring.drift.min_moved) is one["drifted"] is drifted


def test_a_group_that_fails_less_than_its_probabilities_say_is_named_too(usecase):
    """Guards lists full of what fails no more: one that can have too few fails is told, a small group cannot."""
    drift = DriftSpec(groups=("matching",))
    usecase = dataclasses.replace(usecase, monitoring=MonitoringSpec(drift=drift))
    rng = np.random.default_rng(0)
    n = 3000
    unmatched, rare = np.arange(n) < 100, np.arange(n) >= n - 40
    p = np.where(unmatched, 0.3, 0.03)
    came = rng.random(n) < np.where(unmatched | rare, 0.03, p)
    rows = pa.table(
        {
            "outcome_date": pa.array([FIRST] * n, pa.date32()),
            "probability": p,
            "label": np.where(rare, 0, came).astype(np.int8),
            "matching": np.where(unmatched, "NMAT", np.where(rare, "RARE", "MACH")),
        }
    )
    found = {one.name: one for one in group_findings(usecase, rows)}
    assert [name for name, one in found.items() if one.breached] == ["matching NMAT"]
    assert 0.2 < found["matching NMAT"].low < 1 / drift.min_ratio
    assert found["matching RARE"].low is None, "no fail at all in 40 decisions is chance"


@pytest.mark.parametrize(
    ("decisions", "fails", "named"), [(48, 6, True), (48, 4, False), (16, 4, True), (16, 2, False)]
)
def test_a_few_fails_of_a_group_that_hardly_ever_fails_are_enough_to_name_it(usecase, decisions, fails, named):
    """Guards a counterparty that never failed and now fails one trade in eight: on the scale of square roots, on which
    chance is even for large counts only, 6 fails in 48 decisions with 0.6 expected were thought to be chance.
    """
    drift = DriftSpec(groups=("attributes.counterparty",))
    usecase = dataclasses.replace(usecase, monitoring=MonitoringSpec(drift=drift))
    rng = np.random.default_rng(2)
    others = 2000
    rows = pa.table(
        {
            "outcome_date": pa.array([FIRST] * (others + decisions), pa.date32()),
            "probability": np.append(np.full(others, 0.06), np.full(decisions, 0.0125)),
            "label": np.append(rng.random(others) < 0.06, np.arange(decisions) < fails).astype(np.int8),
            "attributes.counterparty": [*(f"C{i % 25}" for i in range(others)), *["rare"] * decisions],
        }
    )
    assert ([one.name for one in group_findings(usecase, rows) if one.breached] == ["counterparty rare"]) is named


def test_feeds_that_stall_shrink_or_come_late_are_told(usecase):
    days = [FIRST + timedelta(days=n) for n in range(15)]
    today = days[-1]

    def told(now: int, late: int, after: timedelta = timedelta()) -> dict[str, Finding]:
        feeds: list[dict[str, Any]] = [
            {
                "source": "trades",
                "business_date": day,
                "events": 1000 + n,
                "late": 5,
                "first_known_at": datetime.combine(day + after, time(9), tzinfo=UTC),
            }
            for n, day in enumerate(days)
        ]
        feeds[-1] |= {"events": now, "late": late}
        return {one.measure: one for one in feed_findings(usecase, today, feeds)}

    assert not any(one.breached for one in told(990, 4).values())
    assert told(300, 0)["events"].breached
    assert told(0, 0)["events"].at_once
    assert told(1000, 400)["late"].breached
    assert told(0, 0, after=timedelta(days=14)) == {}, "what is published weeks later is not missed the next day"


@given(counts, st.data())
def test_an_effect_size_is_zero_of_itself_never_negative_and_finite(before, data):
    after = data.draw(st.lists(st.integers(0, 500), min_size=len(before), max_size=len(before)))
    e, a = shares_of(before), shares_of(after)
    assert stability_index(e, e) == jensen_shannon(e, e) == 0
    assert 0 <= stability_index(e, a) < math.inf
    assert 0 <= jensen_shannon(e, a) <= 1
    assert jensen_shannon(e, a) == pytest.approx(jensen_shannon(a, e))
    assert expected_by_chance(len(before), 100, 100) <= largest_by_chance(len(before), 100, 100)


@given(st.lists(st.integers(-100, 100), min_size=1, max_size=200), st.lists(st.integers(-120, 120), min_size=1))
def test_groups_do_not_change_when_values_and_their_groups_are_stretched(before, after):
    def stretch(values: Any) -> Any:
        return np.exp(np.asarray(values, dtype=np.float64) / 25)

    edges = group_edges(before)
    assert len(edges) < 10
    plain = np.searchsorted(edges, np.asarray(after, dtype=np.float64), side="right")
    stretched = np.searchsorted(group_edges(stretch(before)), stretch(after), side="right")
    assert plain.tolist() == stretched.tolist()


def test_a_frequent_value_has_a_group_of_its_own():
    """Guards flags: with quantiles as edges, 0 and 1 were in one group if one of them is rarer than a tenth."""
    assert group_edges([0.0] * 99 + [1.0]).tolist() == [1.0]
    assert len(group_edges(np.random.default_rng(0).normal(size=5000))) == 9


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.none() | st.floats(width=32), st.none() | st.floats(), st.none() | st.sampled_from(["DE", "", "?"])
        ),
        max_size=40,
    )
)
def test_no_input_gives_nan(reference, usecase, values):
    day = FIRST + timedelta(days=30)
    rows = pa.table(
        {
            "decision_date": pa.array([day] * len(values), pa.date32()),
            "slot": pa.array(["noon"] * len(values), pa.string()),
            "amount": pa.array([one[0] for one in values], pa.float64()),
            "rate": pa.array([one[1] for one in values], pa.float64()),
            "country": pa.array([one[2] for one in values], pa.string()),
            "probability": pa.array([0.5] * len(values), pa.float64()),
        }
    )
    usecase = dataclasses.replace(usecase, monitoring=MonitoringSpec(drift=DriftSpec(min_rows=1)))
    found = date_findings(usecase, NAMES, reference, day, rows, {}, ("noon", "evening"))
    for row in drift_table(usecase, day, found, []).to_pylist():
        numbers = [row[name] for name in ("value", "expected", "low", "high", "moved") if row[name] is not None]
        assert all(math.isfinite(number) for number in numbers), row


def test_the_table_has_its_schema_and_a_reference_survives_being_written(usecase, reference):
    import msgspec

    read = msgspec.json.decode(msgspec.json.encode(reference), type=DriftReference)
    assert read == reference
    day = FIRST + timedelta(days=30)
    found = findings(usecase, read, decisions(1, first=day), day)
    assert drift_table(usecase, day, found.values(), []).schema == DRIFT_SCHEMA


def test_outcomes_that_no_feature_foretold_are_found_on_the_newest_date(usecase):
    """Guards against drift of features alone: the law of the outcome changes and every column is as before."""
    rng = np.random.default_rng(1)
    dates = np.repeat(np.arange(12), 1500)
    p = rng.beta(1, 12, len(dates))

    def told(stress: float) -> Finding:
        odds = p / (1 - p) * np.where(dates == 11, stress, 1)
        label = rng.random(len(p)) < odds / (1 + odds)
        days = pa.array([FIRST + timedelta(days=int(n)) for n in dates], pa.date32())
        (one,) = whole_finding(
            usecase, pa.table({"outcome_date": days, "probability": p, "label": label.astype(np.int8)})
        )
        return one

    assert not told(1.0).breached
    assert told(2.2).breached
    assert told(0.3).breached
    assert told(2.2).why.endswith("expected, since 2026-01-16")
    nothing = pa.table({"outcome_date": pa.array([], pa.date32()), "probability": [], "label": []})
    assert whole_finding(usecase, nothing) == []
