"""`make bench-similar`: do similar past cases say something, and how fast are they found; writes a page in docs/.

On a simulated market a model is trained, and its decisions of the days after become past cases. A second model is
trained on those days too and scores the days after them, as in production: neither has seen what it is judged on.

`--cases` is how many past cases the speed is measured with; `--keep` names a folder in which simulated days stay.
"""

import argparse
import math
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from sqlalchemy import Engine, text

from benchmarks.bench_monitoring import kept
from benchmarks.bench_report import DOCS, page
from benchmarks.drift_days import Days
from ml_assets.database.connect import connect
from ml_assets.database.copying import copy_rows
from ml_assets.database.migrate import migrate
from ml_assets.database.models import PastCase
from ml_assets.database.similar import DIMENSIONS, SimilarCase, make_room, similar_cases, stored
from ml_assets.learning.case_space import CaseSpace
from ml_assets.learning.fit import fit_candidate
from ml_assets.learning.reasons import Explainer
from ml_assets.learning.scorer import Scorer
from ml_assets.learning.statistics import roc_auc
from ml_assets.local.embedded.environment import database_url, stop_servers
from ml_assets.local.simulation.market import MarketConfig
from ml_assets.settings import Settings
from ml_assets_tests.usecases.settlement import USE_CASE

REPORT = DOCS / "benchmarks-similar.md"
DAYS, FIRST_MODEL, SECOND_MODEL = 80, 40, 62
ASKED, TIMED, BY_HAND, NEAREST = 5_000, 1_000, 50, 10
MANY = "many"
_BATCH = 50_000


@dataclass(frozen=True)
class Decided:
    """Decisions of known outcome, as a model scored them, and their vectors (n, DIMENSIONS)."""

    rows: pa.Table
    vectors: NDArray[np.float32]

    def __len__(self) -> int:
        return self.rows.num_rows


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--cases", type=int, default=1_000_000)
    asked.add_argument("--keep", type=Path)
    given = asked.parse_args()
    number = given.cases
    settings = Settings(home=Path(tempfile.mkdtemp(prefix="ml_assets_")))
    engine = connect(database_url(settings))
    try:
        migrate(engine)
        market = MarketConfig(instructions_per_day=500, counterparties=30, seed=1, dirty=0, days=DAYS)
        past, later = decisions(kept(given.keep, market))
        useful = usefulness(engine, past, later)
        write(number, past, useful, speed(engine, past, later, number))
    finally:
        engine.dispose()
        stop_servers(settings)
        shutil.rmtree(settings.home, ignore_errors=True)


def decisions(days: Days) -> tuple[Decided, Decided]:
    """Return the decisions from the first model on, and those from the second on; both lie in the first's space."""
    first, second = (scorer_of(days, number) for number in (FIRST_MODEL, SECOND_MODEL))
    space = CaseSpace(first.manifest, Explainer(USE_CASE, first).causes, DIMENSIONS)

    def decided(scorer: Scorer, after: int, until: int) -> Decided:
        on = days.features["decision_date"]
        within = pc.and_(pc.greater(on, pa.scalar(days.days[after])), pc.less_equal(on, pa.scalar(days.days[until])))
        labels = days.labels.select(["entity_id", "decision_time", "label", "label_known_at"])
        rows = days.features.filter(within).join(labels, keys=["entity_id", "decision_time"], join_type="inner")
        rows = rows.sort_by([("decision_time", "ascending"), ("entity_id", "ascending")]).combine_chunks()
        rows = rows.append_column("probability", pa.array(scorer.score(rows)))
        added = Explainer(USE_CASE, scorer).contributions(rows, background=4)
        return Decided(rows, space.vectors(rows, added))

    early, later = decided(first, FIRST_MODEL, SECOND_MODEL), decided(second, SECOND_MODEL, DAYS - 1)
    both = Decided(pa.concat_tables([early.rows, later.rows]), np.concatenate([early.vectors, later.vectors]))
    return both, later


def scorer_of(days: Days, number: int) -> Scorer:
    """Return the gradient boosting that is trained as of the end of a day."""
    candidate = next(one for one in USE_CASE.candidates if one.name == "lightgbm")
    return fit_candidate(USE_CASE, candidate, days.training_set(number), threads=1).scorer


def usefulness(engine: Engine, past: Decided, later: Decided) -> list[str]:
    """Return the lines that say what the share of fails among the nearest cases is worth."""
    make_room(engine, USE_CASE.name)
    fill(engine, USE_CASE.name, past)
    chosen = np.sort(np.random.default_rng(0).choice(len(later), min(ASKED, len(later)), replace=False))
    shares, outcomes, probabilities = [], [], []
    for at in chosen.tolist():
        found = ask(engine, USE_CASE.name, later, at)
        if len(found) == NEAREST:
            shares.append(sum(case.label for case in found) / NEAREST)
            outcomes.append(later.rows["label"][at].as_py())
            probabilities.append(later.rows["probability"][at].as_py())
    share, y, p = np.array(shares), np.array(outcomes, dtype=np.float64), np.array(probabilities)
    draws = np.random.default_rng(1).binomial(NEAREST, p) / NEAREST
    tenths = np.array_split(np.argsort(p, kind="stable"), 10)
    apart = [abs(share[part].mean() - p[part].mean()) for part in tenths]
    said = [f"| {p[part].mean():.3f} | {share[part].mean():.3f} | {y[part].mean():.3f} |" for part in tenths]
    return [
        f"Of {len(y):,} decisions of the last {DAYS - 1 - SECOND_MODEL} days, drawn at random, {y.mean():.1%} failed. "
        f"Asked was for the {NEAREST} nearest of the same slot whose outcome was known by the decision.",
        "",
        "| what ranks the decisions | ROC-AUC |",
        "| --- | ---: |",
        "| chance | 0.500 |",
        f"| share of fails among the {NEAREST} nearest | **{roc_auc(y, share):.3f}** |",
        f"| {NEAREST} draws by the model's probability: what ten cases can say if they are exactly alike | "
        f"{roc_auc(y, draws):.3f} |",
        f"| the model's probability itself | {roc_auc(y, p):.3f} |",
        "",
        f"By tenths of the probability the share differs from it by **{np.mean(apart):.4f}** on average and "
        f"{np.max(apart):.4f} at most:",
        "",
        "| mean probability | mean share of fails among the nearest | failed |",
        "| ---: | ---: | ---: |",
        *said,
    ]


def speed(engine: Engine, past: Decided, later: Decided, number: int) -> list[str]:
    """Return the lines that say how long a search takes among so many cases, and how many of the nearest it finds."""
    make_room(engine, MANY)
    with engine.begin() as connection:
        connection.execute(text(f"DROP INDEX past_cases_{MANY}_vectors"))
    started = perf_counter()
    for part in many(past, number):
        fill(engine, MANY, part)
    filled = perf_counter() - started
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("SET maintenance_work_mem = '1500MB'"))
        started = perf_counter()
        connection.execute(text("SELECT past_cases_make_use_case(:name)"), {"name": MANY})
        indexed = perf_counter() - started
        connection.execute(text(f"VACUUM ANALYZE past_cases_{MANY}"))
        size = connection.execute(text(f"SELECT pg_relation_size('past_cases_{MANY}_vectors')")).scalar_one()
    chosen = np.random.default_rng(2).choice(len(later), TIMED, replace=False).tolist()
    for at in chosen[:200]:
        ask(engine, MANY, later, at)
    times = []
    with engine.begin() as connection:  # of the pool, so it is the one that every search has
        server = int(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())
    before, ours = processor_ms(server), process_time()
    for at in chosen:
        started = perf_counter()
        ask(engine, MANY, later, at)
        times.append((perf_counter() - started) * 1000)
    of_server, of_client = (processor_ms(server) - before) / len(times), (process_time() - ours) * 1000 / len(times)
    found = sum(len({*by_index} & {*exact}) for by_index, exact in exactly(engine, later, chosen[:BY_HAND]))
    ordered = sorted(times)
    return [
        f"{number:,} past cases in one use case: those above drawn again, each number changed a little. "
        f"{len(times):,} searches, one after the other, from Python: the transaction, the settings, the search with "
        "its filter, and the predictions of what was found.",
        "",
        "| what | measured |",
        "| --- | ---: |",
        f"| processor time of a search: server, and client | **{of_server:.1f} ms**, {of_client:.1f} ms |",
        f"| a search on this machine with its load, median | {statistics.median(times):.1f} ms |",
        f"| a search, 99 of 100 | {ordered[math.ceil(0.99 * len(ordered)) - 1]:.1f} ms |",
        f"| of the {NEAREST} nearest by the exact distance found, {BY_HAND} searches | "
        f"{found / (BY_HAND * NEAREST):.1%} |",
        f"| writing the cases, without the index | {filled:.0f} s |",
        f"| building the index at once, with 1.5 GB of memory | {indexed:.0f} s |",
        f"| size of the index | {size / 2**20:,.0f} MiB |",
    ]


def processor_ms(process: int) -> float:
    """Return the milliseconds of processor that a process has used: what others do on the machine is not in them."""
    used = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[11:13]
    return sum(map(int, used)) * 1000 / os.sysconf("SC_CLK_TCK")


def exactly(engine: Engine, later: Decided, chosen: list[int]) -> Iterator[tuple[list[str], list[str]]]:
    """Yield for each decision what the index finds, and the nearest by going through all cases."""
    for at in chosen:
        by_index = [case.entity_id for case in ask(engine, MANY, later, at)]
        with engine.begin() as connection:
            rows = connection.execute(
                text(
                    f"SELECT entity_id FROM past_cases WHERE use_case = '{MANY}' AND slot = :slot "
                    f"ORDER BY vector::vector({DIMENSIONS}) <-> CAST(:vector AS vector({DIMENSIONS})) LIMIT {NEAREST}"
                ),
                {"slot": later.rows["slot"][at].as_py(), "vector": str(later.vectors[at].tolist())},
            )
            yield by_index, list(rows.scalars())


def ask(engine: Engine, use_case: str, later: Decided, at: int) -> list[SimilarCase]:
    row = later.rows.slice(at, 1).to_pylist()[0]
    of_market = use_case == USE_CASE.name
    return similar_cases(
        engine, use_case, "space", later.vectors[at].tolist(), slot=row["slot"], entity_id=row["entity_id"],
        outcome_date=row["outcome_date"], limit=NEAREST,
        as_of=row["decision_time"] if of_market else datetime(2027, 1, 1, tzinfo=UTC),
    )  # fmt: skip


def many(past: Decided, number: int) -> Iterator[Decided]:
    """Yield cases that are spread as the past ones are, with entities of their own."""
    rng = np.random.default_rng(3)
    spread = 0.1 * past.vectors.std(axis=0)
    for start in range(0, number, _BATCH):
        size = min(_BATCH, number - start)
        drawn = rng.integers(0, len(past), size)
        vectors = past.vectors[drawn] + rng.normal(size=(size, DIMENSIONS)).astype(np.float32) * spread
        rows = past.rows.take(pa.array(drawn))
        at = rows.schema.get_field_index("entity_id")
        names = pa.array([f"{start + n:09d}" for n in range(size)])
        yield Decided(rows.set_column(at, "entity_id", names), vectors.astype(np.float32))


def fill(engine: Engine, use_case: str, decided: Decided) -> None:
    """Write decisions as past cases."""
    rows, size = decided.rows, len(decided)
    constant = {
        "use_case": use_case, "mlflow_run_id": "run", "model_version": 1, "expected_cost": 1.0, "on_list": False,
        "control": False, "space": "space",
    }  # fmt: skip
    for name, value in constant.items():
        rows = rows.append_column(name, pa.repeat(pa.scalar(value), size))
    rows = rows.append_column("vector", pa.array([stored(vector) for vector in decided.vectors.tolist()]))
    with engine.begin() as connection:
        copy_rows(connection, "past_cases", rows.select([column.name for column in PastCase.__table__.columns]))


def write(number: int, past: Decided, useful: list[str], fast: list[str]) -> None:
    first, last = (date.isoformat(past.rows["decision_date"][at].as_py()) for at in (0, -1))
    about = [
        "Written by `make bench-similar`. What a search returns is in [similar cases](similar.md).",
        "The market is simulated; gradient boosting, trained twice, scores days that it has not seen.",
    ]
    facts = [
        "settlement_fails, 500 instructions a day, 30 counterparties: "
        f"{len(past):,} past cases decided {first} to {last}",
    ]
    body = ["## Do they say something?", "", *useful, "", "## How fast?", "", *fast]
    REPORT.write_text(page("Benchmarks of similar cases", about, facts, body), encoding="utf-8")
    sys.stdout.write(REPORT.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
