"""`make bench-desk`: how long pages take on a large list, and what polling costs; writes docs/benchmarks-desk.md.

python -m benchmarks.bench_desk [open instructions, 200,000 if not given]
"""

import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from time import perf_counter, process_time

from sqlalchemy import Engine, text
from starlette.testclient import TestClient

from benchmarks.bench_report import DOCS, page
from ml_assets.database.connect import connect
from ml_assets.database.migrate import migrate
from ml_assets.database.work_list import work_list
from ml_assets.desk.app import Desk, build_app
from ml_assets.desk.lists import MOST_ROWS
from ml_assets.desk.people import Forms, by_login
from ml_assets.local.embedded.environment import database_url, stop_servers
from ml_assets.platform import open_platform
from ml_assets.settings import Settings
from ml_assets.usecases.settlement_fails.usecase import USE_CASE

REPORT = DOCS / "benchmarks-desk.md"
DAY = date(2026, 3, 30)
SCORED = datetime(2026, 3, 30, 7, tzinfo=UTC)
ANALYSTS, EVERY_SECONDS, ROUNDS = 50, 15, 20
# All are decided at one time; the team's list has reasons, as scoring gives it.
PREDICTIONS = """
INSERT INTO predictions (
    use_case, decision_time, mlflow_run_id, entity_id, decision_date, slot, outcome_date, probability, cost_if_fail,
    expected_cost, rank, attributes, reason_codes, model_name, model_version, feature_set_hash, data_versions,
    git_commit, dagster_run_id, scored_at)
SELECT
    :use_case, :at, 'run', '20260327-' || lpad(CAST(n AS text), 7, '0'), :day, 'isd_morning', :day,
    1.0 / (1 + n % 1000), 1000, 1000.0 / n, n,
    jsonb_build_object('market', 'XETR', 'counterparty', 'Counterparty ' || n % 60, 'counterparty_tier', 'core',
        'security', 'Liquid Share ' || n % 400, 'isin', 'DE000' || n, 'movement', 'DELI', 'amount', n * 1000,
        'pset', 'DAKVDEFFXXX', 'cut_off', '16:00'),
    CASE WHEN n <= 100 THEN jsonb_build_object('cause', 'LACK', 'name', 'lack of securities', 'action', 'borrow',
        'base', -3, 'log_odds', -1, 'contributions', jsonb_build_object('LACK', 2)) END,
    'm', 1, 'h', '{}', 'c', 'd', :at
FROM generate_series(1, :number) AS n
"""
SCORINGS = """
INSERT INTO scorings (use_case, decision_time, model_version, mlflow_run_id) VALUES (:use_case, :at, 1, 'run')
"""


def main() -> None:
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    settings = Settings(home=Path(tempfile.mkdtemp(prefix="ml_assets_")))
    engine = connect(database_url(settings))
    try:
        migrate(engine)
        fill(engine, number)
        _write(number, *measure(engine, settings))
    finally:
        engine.dispose()
        stop_servers(settings)
        shutil.rmtree(settings.home, ignore_errors=True)


def fill(engine: Engine, number: int) -> None:
    given = {"use_case": USE_CASE.name, "at": SCORED, "day": DAY, "number": number}
    with engine.begin() as connection:
        connection.execute(text("SELECT predictions_make_month(:at)"), given)
        connection.execute(text(PREDICTIONS), given)
        connection.execute(text(SCORINGS), given)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))


def measure(engine: Engine, settings: Settings) -> tuple[dict[str, tuple[float, float]], float, float]:
    """Return of each page the median seconds and seconds of processor; those of one poll; seconds of reading a list."""
    read = statistics.median(_timed(lambda: work_list(engine, USE_CASE.name, DAY, MOST_ROWS), 5)[0])
    desk = Desk(
        open_platform(settings), [USE_CASE], clock=lambda: SCORED, door=by_login("ana"), forms=Forms(b"bench"),
        every_seconds=1e9,
    )  # fmt: skip
    client = TestClient(build_app(desk), base_url="http://localhost", client=("127.0.0.1", 1))
    path = f"/{USE_CASE.name}/{DAY}"
    pages = {
        "the list, 250 rows": path,
        "the list, all 2,000 rows": f"{path}?rows=all&view=all",
        "a search in all": f"{path}?rows=all&view=all&q=counterparty+7",
        "a filter, and another order": f"{path}?rows=all&view=all&is.market=XETR&order=2",
        "one row": f"{path}/row?entity=20260327-0000001",
        "export of 2,000 rows": f"{path}/export.csv?view=all",
    }
    client.get(path).raise_for_status()
    found = {}
    for name, address in pages.items():
        seconds, processor = _timed(lambda address=address: client.get(address).raise_for_status(), ROUNDS)
        found[name] = (statistics.median(seconds), statistics.median(processor))
    _, polls = _timed(lambda: client.get(f"{path}/changes?snapshot=x&after=0").raise_for_status(), 100)
    return found, statistics.median(polls), read


def _timed(does: Callable[[], object], rounds: int) -> tuple[list[float], list[float]]:
    seconds, processor = [], []
    for _ in range(rounds):
        begun, worked = perf_counter(), process_time()
        does()
        seconds.append(perf_counter() - begun)
        processor.append(process_time() - worked)
        time.sleep(0.01)
    return seconds, processor


def _write(number: int, found: dict[str, tuple[float, float]], poll: float, read: float) -> None:
    cores = ANALYSTS / EVERY_SECONDS * poll
    body = ["| page | ms, median | of them processor |", "| --- | ---: | ---: |"]
    body += [f"| {name} | {1000 * all_:.0f} | {1000 * processor:.0f} |" for name, (all_, processor) in found.items()]
    about = [
        "Written by `make bench-desk`. Pages as the server makes them, without a network, one after the other.",
    ]
    facts = [
        f"{number:,} open instructions on one list, of which the desk shows the first {MOST_ROWS:,}",
        f"reading the list from PostgreSQL takes {1000 * read:.0f} ms; it is read at most every {EVERY_SECONDS} s, "
        "however many look, in a thread, and readers have the one before meanwhile",
        f"**{ANALYSTS} analysts whose pages look every {EVERY_SECONDS} s cost {100 * cores:.1f} % of a core** "
        f"({1000 * poll:.1f} ms a look)",
    ]
    REPORT.write_text(page("Benchmarks of the desk", about, facts, body), encoding="utf-8")
    sys.stdout.write(f"{REPORT}\n")


if __name__ == "__main__":
    main()
