"""`make bench-alerts`: how long rules take on a year of predictions; writes docs/benchmarks-alerts.md.

python -m benchmarks.bench_alerts [predictions, 10,000,000 if not given]
"""

import os
import re
import shutil
import statistics
import sys
import tempfile
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from time import perf_counter
from typing import Any

from sqlalchemy import Engine, text

from benchmarks.bench_report import DOCS, page
from ml_assets.alerts.machine import Failed
from ml_assets.alerts.rule import Rule, read_rule
from ml_assets.database.connect import connect
from ml_assets.database.migrate import migrate
from ml_assets.lake import Lake
from ml_assets.lifecycle.alert_rules import all_rules
from ml_assets.lifecycle.alerts import Ground, result_of
from ml_assets.local.embedded.environment import database_url, stop_servers
from ml_assets.settings import Settings
from ml_assets.usecases.settlement_fails.usecase import USE_CASE

REPORT = DOCS / "benchmarks-alerts.md"
LAST = date(2026, 12, 18)
DATES = 250
# Rules that one evaluation has: those of one use case, again and again.
RULES = 50

# A date's instructions, decided once and with an outcome, as scoring and monitoring write them.
PREDICTIONS = """
INSERT INTO predictions (
    use_case, decision_time, mlflow_run_id, entity_id, decision_date, slot, outcome_date, probability, cost_if_fail,
    expected_cost, rank, attributes, model_name, model_version, feature_set_hash, data_versions, git_commit,
    dagster_run_id, scored_at)
SELECT
    :use_case, :at, 'run', to_char(CAST(:day AS date), 'YYYYMMDD-') || lpad(CAST(n AS text), 7, '0'), :day, 'morning',
    CAST(:day AS date) + 1, (n % 100) / 1000.0, 1000, n % 100, n,
    jsonb_build_object('market', 'M' || n % 8, 'counterparty', 'C' || n % 40, 'amount', 1000000),
    'm', 1, 'h', '{}', 'c', 'd', :at
FROM generate_series(1, :number) AS n
"""
OUTCOMES = """
INSERT INTO outcomes (
    use_case, outcome_date, stage, entity_id, decision_time, decision_date, slot, model_version, probability,
    cost_if_fail, expected_cost, on_list, is_last, label, label_known_at, is_complete)
SELECT
    use_case, outcome_date, 'batch', entity_id, decision_time, decision_date, slot, model_version, probability,
    cost_if_fail, expected_cost, false, true, CAST(rank % 20 = 0 AS integer), decision_time + INTERVAL '2 days', true
FROM predictions WHERE use_case = :use_case AND decision_time = :at
"""
SCORED = """
INSERT INTO scorings (
    use_case, decision_time, model_version, mlflow_run_id, slot, decision_date, decisions, mean_probability)
SELECT :use_case, :at, 1, 'run', 'morning', :day, count(*), avg(probability)
FROM predictions WHERE use_case = :use_case AND decision_time = :at
"""
COUNTS = """
INSERT INTO outcome_counts (
    use_case, outcome_date, stage, dimension, value, decisions, labelled, fails, promised, cost, is_complete, known_at)
SELECT
    use_case, outcome_date, 'batch', CASE WHEN GROUPING(market) = 1 THEN 'all' ELSE 'market' END,
    coalesce(market, 'all'), count(*), count(*), sum(label), sum(probability), sum(label * cost_if_fail), true,
    max(label_known_at)
FROM (
    SELECT o.*, p.attributes ->> 'market' AS market
    FROM outcomes AS o JOIN predictions AS p USING (use_case, decision_time, entity_id, outcome_date)
    WHERE use_case = :use_case AND decision_time = :at
) AS rows
GROUP BY GROUPING SETS ((use_case, outcome_date), (use_case, outcome_date, market))
"""


def main() -> None:
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000_000
    settings = Settings(home=Path(tempfile.mkdtemp(prefix="ml_assets_")))
    engine = connect(database_url(settings))
    try:
        migrate(engine)
        fill(engine, number // DATES)
        _write(number, measure(engine, settings))
    finally:
        engine.dispose()
        stop_servers(settings)
        shutil.rmtree(settings.home, ignore_errors=True)


def fill(engine: Engine, per_date: int) -> None:
    """Write `DATES` business dates of predictions, and outcomes of all but the last, as scoring and monitoring do."""
    days = [LAST - timedelta(days=n) for n in range(400)]
    for day in sorted(day for day in days if day.weekday() < 5)[-DATES:]:
        at = datetime(day.year, day.month, day.day, 7, tzinfo=UTC)
        given = {"use_case": USE_CASE.name, "at": at, "day": day, "number": per_date}
        with engine.begin() as connection:
            connection.execute(text("SELECT predictions_make_month(:at)"), given)
            connection.execute(text(PREDICTIONS), given)
            connection.execute(text(SCORED), given)
            if day < LAST:
                connection.execute(text(OUTCOMES), given)
                connection.execute(text(COUNTS), given)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))


@dataclass(frozen=True)
class Measured:
    """The seconds of each rule over `RULES` evaluations, those of the first of all, and PostgreSQL's of processor."""

    rules: list[tuple[Rule, list[float]]]
    first: float
    processor: float

    @property
    def whole(self) -> float:
        """The seconds of all evaluations."""
        return sum(sum(times) for _, times in self.rules)


def measure(engine: Engine, settings: Settings) -> Measured:
    """Return how long the rules of the use case take, and one of a team's own that reads the work-list.

    The first evaluation of a process loads modules and connects: it is measured by itself.
    """
    nothing: Any = None
    ground = Ground(Lake(settings.lake_uri), nothing, engine, [USE_CASE], {})
    now = datetime(LAST.year, LAST.month, LAST.day, 9, tzinfo=UTC)
    of_use_case = [rule for rule in all_rules([USE_CASE]) if rule.use_case == USE_CASE.name]
    rules = [rule for rule in of_use_case if not rule.reads("champions")]
    (shown,) = re.findall(r"```sql\n(.*?)```", (DOCS / "alerts.md").read_text(encoding="utf-8"), re.DOTALL)
    rules.append(read_rule(USE_CASE.name, "scores_are_dear", "docs/alerts.md", shown, owner="a team"))
    times: dict[str, list[float]] = {rule.name: [] for rule in rules}
    begun = perf_counter()
    result_of(ground, rules[0], now)
    first, before = perf_counter() - begun, _processor(engine)
    for n in range(RULES):
        rule = rules[n % len(rules)]
        begun = perf_counter()
        result = result_of(ground, rule, now)
        times[rule.name].append(perf_counter() - begun)
        if isinstance(result, Failed):
            raise SystemExit(f"{rule.full_name}: {result.why}")
    return Measured([(rule, times[rule.name]) for rule in rules], first, _processor(engine) - before)


def _processor(engine: Engine) -> float:
    """Return the seconds of processor that this connection's process of PostgreSQL has used."""
    with engine.connect() as connection:
        pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _write(number: int, measured: Measured) -> None:
    body = ["| rule | seconds, median |", "| --- | ---: |"]
    body += [
        f"| `{rule.name}` | {statistics.median(times):.3f} |"
        for rule, times in sorted(measured.rules, key=lambda one: -statistics.median(one[1]))
    ]
    about = ["Written by `make bench-alerts`. The queries alone: what the lake is asked for beside them is empty here."]
    facts = [
        f"{number:,} predictions of {DATES} dates in PostgreSQL, with outcomes of all dates but one",
        f"{RULES} evaluations of {len(measured.rules)} rules, one after the other, took **{measured.whole:.1f} s**, of "
        f"which PostgreSQL was {measured.processor:.1f} s on the processor; before them the first of the process took "
        f"{measured.first:.1f} s",
        "`scores_are_dear` is the rule that [alerts](alerts.md#add-a-rule) shows: it reads the work-list of a date",
    ]
    REPORT.write_text(page("Benchmarks of alerts", about, facts, body), encoding="utf-8")
    sys.stdout.write(f"{measured.whole:.1f} s; {REPORT}\n")


if __name__ == "__main__":
    main()
