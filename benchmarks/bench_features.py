"""`make bench-features`: as-of joins against pandas and Feast, and what a day costs after years.

Feast is installed by this program into an environment that is thrown away afterwards; where that cannot be done, the
report says so. All sides get the same rows and must give the same answers.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.bench_report import DOCS, page
from ml_assets.calendars import BusinessCalendar
from ml_assets.contracts import TIMESTAMP, Event
from ml_assets.features import AsOfDatabase
from ml_assets.lake import Lake, curated_table, reference_table
from ml_assets.learning.candidates import rule
from ml_assets.lifecycle.features import compute_features
from ml_assets.local.simulation.market import MarketConfig, simulate
from ml_assets.spec import DecisionTime, EventSpec, Feature, LabelSpec, Slot, SplitSpec, UseCase
from ml_assets.usecases import discover
from ml_assets_tests.usecases.settlement import curated_market, references

ROUNDS = 3
DECISIONS, ENTITIES = 1_000_000, 2_000
YEAR = (date(2025, 1, 2), date(2025, 12, 30))
CALENDAR = BusinessCalendar("ECB")
AT = time(15)
# Feast joins each decision with every quote of its entity before it chooses: about 270 rows a decision. Asked for a
# million at once it ran out of 23 GB, so it is asked in parts; its default store, Dask, is slower and gets a small one.
FEAST_PART = 100_000
FEAST_DEFAULT = 20_000
FEAST_MEMORY_GB = 10
HISTORIES = (10, 100, 400)
REPORT = DOCS / "benchmarks-features.md"
_LOOK_BACK = timedelta(days=30)


class Ask(Event, frozen=True, kw_only=True):
    """Something is to be decided about an entity."""

    entity: str


class Quote(Event, frozen=True, kw_only=True):
    """What is told of an entity, once a day, often late."""

    entity: str
    a: float
    b: float


@dataclass(frozen=True)
class AsOfResult:
    """Seconds a round of each side; those of Feast by its offline store, or why they could not be measured."""

    ours: list[float]
    merge_asof: list[float]
    feast: dict[str, float]
    why_not: str = ""


def measure_as_of(folder: Path, *, decisions: int = DECISIONS, feast: bool = True) -> AsOfResult:
    """Return the times of an as-of training set: the newest known quote of each decision's entity, over a year."""
    usecase = as_of_usecase(folder)
    asks, quotes = as_of_events(decisions)
    ours: list[float] = []
    peer: list[float] = []
    for _ in range(ROUNDS):
        started = perf_counter()
        expected = merge_asof(asks, quotes)
        peer.append(perf_counter() - started)
        made, seconds = _ours(usecase, asks, quotes)
        ours.append(seconds)
    same_answers(made, expected)
    taken, why_not = _feast(folder, asks, quotes, expected) if feast else ({}, "not asked for")
    return AsOfResult(ours, peer, taken, why_not)


def _ours(usecase: UseCase, asks: pa.Table, quotes: pa.Table) -> tuple[pd.DataFrame, float]:
    """Return the training set's features, and the seconds that loading and making them took."""
    started = perf_counter()
    with AsOfDatabase(usecase, {"asks": asks, "quotes": quotes}, {}) as db:
        made = db.features_at(as_of_decisions(usecase))
    return made.select(["entity_id", "a", "b"]).to_pandas(), perf_counter() - started


def as_of_decisions(usecase: UseCase) -> list[DecisionTime]:
    """Return the decision times of the year."""
    return [decision for day in CALENDAR.between(*YEAR) for decision in usecase.decision_times(day)]


def measure_cost_curve(folder: Path, *, per_day: int = 500) -> dict[int, list[float]]:
    """Return the seconds of making a day's features of settlement_fails after so many days of history."""
    usecase = next(u for u in discover() if u.name == "settlement_fails")
    config = MarketConfig(days=max(HISTORIES), instructions_per_day=per_day, dirty=0)
    market = simulate(config)
    events, reference_rows = curated_market(market), references(market, folder / "reference")
    days = list(market.world.calendar[: config.days])
    found: dict[int, list[float]] = {}
    for history in HISTORIES:
        lake = Lake(str(folder / f"lake{history}"))
        first = days[-history]
        for spec in usecase.events:
            rows = events[spec.name]
            kept = rows.filter(pc.greater_equal(rows["business_date"], pa.scalar(first)))
            lake.replace(
                curated_table(usecase, spec), kept, "business_date", kept["business_date"].unique().to_pylist()
            )
        for reference in usecase.references:
            lake.overwrite(reference_table(usecase, reference), reference_rows[reference.name])
        compute_features(lake, usecase, [days[-1]])
        for _ in range(ROUNDS):
            started = perf_counter()
            compute_features(lake, usecase, [days[-1]])
            found.setdefault(history, []).append(perf_counter() - started)
    return found


def report(as_of: AsOfResult, curve: dict[int, list[float]], decisions: int = DECISIONS) -> list[str]:
    """Return what was measured, as Markdown lines."""
    ours = median(as_of.ours)
    ratio = median(a / b for a, b in zip(as_of.ours, as_of.merge_asof, strict=True))
    feast = [f"| the same, Feast's offline retrieval | - | not measured: {as_of.why_not} |"]
    if as_of.feast:
        whole, part = as_of.feast["duckdb"], as_of.feast["dask"]
        feast = [
            f"| the same, Feast's offline retrieval from its DuckDB store, {min(FEAST_PART, decisions):,} at a time "
            f"| {whole:.1f} | ours is {whole / ours:.0f} times as fast |",
            f"| {min(FEAST_DEFAULT, decisions):,} of them, from Feast's default store | {part:.1f} | |",
        ]
    return [
        "| what | seconds | |",
        "| --- | ---: | --- |",
        f"| as-of training set, {decisions:,} decisions over a year | {ours:.2f} | load included |",
        f"| the same, pandas `merge_asof` | {median(as_of.merge_asof):.2f} | ours / it: {ratio:.2f} |",
        *feast,
        *(
            f"| features of one day, settlement_fails, {history} days of history | {median(seconds):.2f} | |"
            for history, seconds in curve.items()
        ),
    ]


def as_of_usecase(folder: Path) -> UseCase:
    """Return the use case whose features are the newest known quote; its SQL is written into the folder."""
    files = {
        "decisions": """
            SELECT event_id AS entity_id, business_date AS outcome_date, 1.0 AS cost_if_fail,
                   NULL::VARCHAR AS attributes, entity
            FROM asks WHERE business_date = getvariable('decision_date')
        """,
        "newest": """
            WITH newest AS (
                SELECT entity, arg_max(a, known_at) AS a, arg_max(b, known_at) AS b FROM quotes GROUP BY entity
            )
            SELECT entity_id, a, b FROM decisions LEFT JOIN newest USING (entity)
        """,
    }
    (folder / "features").mkdir(parents=True, exist_ok=True)
    for stem, sql in files.items():
        (folder / "features" / f"{stem}.sql").write_text(sql, encoding="utf-8")
    (folder / "label.sql").write_text("SELECT entity_id, 0 AS label FROM decisions", encoding="utf-8")
    return UseCase(
        name="bench_as_of",
        title="As-of benchmark",
        description="The newest known quote",
        entity="ask",
        owner="bench",
        tier="low",
        folder=folder,
        calendar=CALENDAR,
        first_partition=YEAR[0],
        events=(
            EventSpec("asks", "asks", Ask, "Asked.", history=timedelta(days=1)),
            EventSpec("quotes", "quotes", Quote, "Told.", history=_LOOK_BACK),
        ),
        slots=(Slot("afternoon", AT),),
        features=(Feature("a", "The newest a"), Feature("b", "The newest b")),
        label=LabelSpec("none", "None", lambda day: datetime.combine(day, AT, tzinfo=UTC)),
        split=SplitSpec(10, 2, 2),
        candidates=(rule("a", description="by a"),),
        capacity=10,
    )


def as_of_events(decisions: int) -> tuple[pa.Table, pa.Table]:
    """Return asks and quotes; a quote is known up to two days after it happened, and no two at the same time."""
    rng = np.random.default_rng(1)
    days = np.array(list(CALENDAR.between(*YEAR)), dtype="datetime64[D]")
    names = np.array([f"E{number:05d}" for number in range(ENTITIES)])
    asked = np.sort(rng.integers(0, len(days), decisions))
    morning = days[asked].astype("datetime64[us]") + np.timedelta64(9, "h")
    told = np.repeat(np.arange(-20, len(days)), ENTITIES)
    quoted = np.where(told >= 0, days[np.maximum(told, 0)], days[0] + told.astype("timedelta64[D]")).astype(
        "datetime64[us]"
    )
    quoted += rng.integers(0, 12 * 3600, len(told)).astype("timedelta64[s]")
    late = rng.choice([0, 60, 48 * 3600], len(told), p=[0.5, 0.4, 0.1]) * rng.random(len(told)) * 1e6
    known = np.sort(quoted + late.astype("timedelta64[us]")) + np.arange(len(told)).astype("timedelta64[us]")
    quotes = {
        "event_id": np.arange(len(told)).astype(str),
        "event_time": pa.array(np.minimum(quoted, known), pa.timestamp("us")).cast(TIMESTAMP),
        "entity": np.tile(names, len(told) // ENTITIES),
        "a": rng.normal(size=len(told)),
        "b": rng.normal(size=len(told)),
        "known_at": pa.array(known, pa.timestamp("us")).cast(TIMESTAMP),
        "business_date": pa.array(quoted.astype("datetime64[D]")),
    }
    asks = {
        "event_id": [f"A{number:07d}" for number in range(decisions)],
        "event_time": pa.array(morning, pa.timestamp("us")).cast(TIMESTAMP),
        "entity": names[rng.integers(0, ENTITIES, decisions)],
        "known_at": pa.array(morning, pa.timestamp("us")).cast(TIMESTAMP),
        "business_date": pa.array(days[asked]),
    }
    return pa.table(asks), pa.table(quotes)


def _asked(asks: pa.Table) -> pd.DataFrame:
    frame = asks.select(["event_id", "entity"]).to_pandas()
    at = pd.to_datetime(asks["business_date"].to_pandas()) + pd.Timedelta(hours=AT.hour)
    frame["decision_time"] = at.dt.tz_localize("UTC").astype("datetime64[us, UTC]")
    return frame


def merge_asof(asks: pa.Table, quotes: pa.Table) -> pd.DataFrame:
    """Return by pandas what our features are."""
    told = quotes.select(["entity", "known_at", "a", "b"]).to_pandas().sort_values("known_at")
    joined = pd.merge_asof(
        _asked(asks).sort_values("decision_time"), told, left_on="decision_time", right_on="known_at", by="entity"
    )
    return joined.rename(columns={"event_id": "entity_id"})[["entity_id", "a", "b"]]


def same_answers(one: pd.DataFrame, other: pd.DataFrame) -> None:
    """Refuse answers that differ."""
    first, second = (frame.sort_values("entity_id").reset_index(drop=True) for frame in (one, other))
    pd.testing.assert_frame_equal(first, second, check_dtype=False)


_FEAST = """
import json, resource, sys, time
from datetime import timedelta
from pathlib import Path
import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig
from feast.types import Float64
from feast.value_type import ValueType

resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]), int(sys.argv[2])))
folder, part, few = Path(sys.argv[1]), int(sys.argv[3]), int(sys.argv[4])
entity = Entity(name="entity", join_keys=["entity"], value_type=ValueType.STRING)
view = FeatureView(
    name="quotes", entities=[entity], ttl=timedelta(days=60),
    schema=[Field(name="a", dtype=Float64), Field(name="b", dtype=Float64)],
    source=FileSource(path=str(folder / "quotes.parquet"), timestamp_field="known_at"),
)
seconds = {}
for kind in ("duckdb", "dask"):
    store = FeatureStore(config=RepoConfig(
        project="bench", provider="local", registry=str(folder / f"{kind}.registry"), offline_store={"type": kind},
        online_store={"type": "sqlite", "path": str(folder / "online.db")}, entity_key_serialization_version=3,
    ))
    store.apply([entity, view])
    asked = pd.read_parquet(folder / "asks.parquet")
    if kind == "dask":
        asked = asked.sample(min(few, len(asked)), random_state=1).reset_index(drop=True)
    started = time.perf_counter()
    parts = [
        store.get_historical_features(
            entity_df=asked[first:first + part].reset_index(drop=True), features=["quotes:a", "quotes:b"]
        ).to_df()
        for first in range(0, len(asked), part)
    ]
    seconds[kind] = time.perf_counter() - started
    pd.concat(parts)[["event_id", "a", "b"]].to_parquet(folder / f"{kind}.parquet")
print(json.dumps(seconds))
"""


def _feast(folder: Path, asks: pa.Table, quotes: pa.Table, expected: pd.DataFrame) -> tuple[dict[str, float], str]:
    """Return the seconds of Feast's offline stores in an environment of their own, or why there are none."""
    environment = folder / "feast"
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if uv is None:
        return {}, "uv is not installed"
    python = environment / "bin" / "python"
    try:
        _run([uv, "venv", "--quiet", "--python", sys.executable, str(environment)], 120)
        _run([uv, "pip", "install", "--quiet", "--python", str(python), "feast[duckdb]"], 600)
        _asked(asks).rename(columns={"decision_time": "event_timestamp"}).to_parquet(folder / "asks.parquet")
        quotes.select(["entity", "known_at", "a", "b"]).to_pandas().to_parquet(folder / "quotes.parquet")
        script = folder / "with_feast.py"
        script.write_text(_FEAST, encoding="utf-8")
        limits = [str(FEAST_MEMORY_GB << 30), str(FEAST_PART), str(FEAST_DEFAULT)]
        said = _run([str(python), str(script), str(folder), *limits], 1800)
    except (subprocess.SubprocessError, OSError) as error:
        reason = getattr(error, "stderr", None) or str(error)
        return {}, str(reason).strip().splitlines()[-1]
    finally:
        shutil.rmtree(environment, ignore_errors=True)
    for kind, count in (("duckdb", asks.num_rows), ("dask", min(FEAST_DEFAULT, asks.num_rows))):
        made = pd.read_parquet(folder / f"{kind}.parquet").rename(columns={"event_id": "entity_id"})
        # Of decisions about one entity at one time the default store answers one.
        assert count * 0.9 < len(made) <= count, f"Feast's {kind} store answered {len(made)} of {count} decisions"
        same_answers(made, expected[expected["entity_id"].isin(made["entity_id"])])
    return json.loads(said.strip().splitlines()[-1]), ""


def _run(command: list[str], seconds: int) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=True).stdout


def main() -> None:
    """Measure and write the report; `--quick` takes a tenth of the decisions and only prints."""
    quick = "--quick" in sys.argv
    decisions = DECISIONS // 10 if quick else DECISIONS
    with tempfile.TemporaryDirectory() as folder:
        as_of = measure_as_of(Path(folder) / "as_of", decisions=decisions, feast="--no-feast" not in sys.argv)
        curve = {} if "--no-curve" in sys.argv else measure_cost_curve(Path(folder) / "curve")
    text = page(
        "Benchmarks of features",
        [
            "Written by `make bench-features`. Seconds depend on the machine; read the ratios, and the shape of the",
            "curve.",
        ],
        [f"medians of {ROUNDS} rounds, Feast once; all sides give the same answers"],
        report(as_of, curve, decisions),
    )
    if not quick:
        REPORT.write_text(text, encoding="utf-8")
    print(text)  # noqa: T201 - this is what it is for


if __name__ == "__main__":
    main()
