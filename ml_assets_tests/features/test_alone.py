"""Decisions are made without the others only where the SQL is known not to compare them."""

import pytest

from ml_assets.features.alone import decides_alone
from ml_assets.usecases.cns_fails.usecase import USE_CASE as CNS_FAILS
from ml_assets.usecases.settlement_fails.usecase import USE_CASE as SETTLEMENT_FAILS

NEWEST = "n AS (SELECT entity, max(a) AS a FROM events SEMI JOIN decisions ON decisions.entity_id = events.entity "
GROUPED = f"WITH {NEWEST} GROUP BY entity)"
ON = "n.entity = d.entity_id"


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT entity, max(a) FROM events GROUP BY entity",
        "SELECT entity_id, abs(x) AS x FROM decisions",
        "SELECT entity_id, rate FROM decisions LEFT JOIN rates USING (place) CROSS JOIN market ORDER BY entity_id",
        "WITH r AS (SELECT max(a) AS a FROM events GROUP BY place) SELECT * FROM decisions AS d JOIN r ON r.a < d.a",
        f"{GROUPED} SELECT entity_id, a FROM decisions AS d LEFT JOIN n ON {ON}",
        f"{GROUPED} SELECT d.* FROM decisions d JOIN n ON d.entity_id = n.entity JOIN rates USING (place) WHERE a > 1",
    ],
)
def test_sql_that_keeps_decisions_apart(sql: str) -> None:
    assert decides_alone(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT entity_id, count(*) OVER (PARTITION BY place) AS load FROM decisions",
        "SELECT entity_id, any_value(x) AS x FROM decisions GROUP BY entity_id",
        "SELECT DISTINCT ON (place) entity_id FROM decisions",
        "SELECT entity_id FROM decisions LIMIT 5",
        "SELECT entity_id FROM decisions QUALIFY row_number() OVER (ORDER BY x) = 1",
        "SELECT entity_id, (SELECT count(*) FROM decisions) AS load FROM decisions",
        "SELECT entity_id FROM decisions AS d WHERE x > (SELECT avg(x) FROM decisions)",
        "WITH load AS (SELECT place, count(*) AS n FROM decisions GROUP BY place) "
        "SELECT entity_id, n FROM decisions JOIN load USING (place)",
        "SELECT a.entity_id FROM decisions AS a JOIN decisions AS b USING (place)",
        "SELECT entity_id FROM (SELECT * FROM decisions LIMIT 3)",
        "SELECT entity_id FROM events LEFT JOIN decisions USING (entity_id)",
        "SELECT entity_id FROM decisions FULL JOIN events USING (entity_id)",
        "SELECT entity_id FROM decisions UNION ALL SELECT entity_id FROM decisions",
        "WITH decisions AS (SELECT * FROM events LIMIT 1) SELECT entity_id FROM decisions",
        # What belongs to decisions, added up over all of them.
        f"WITH {NEWEST} GROUP BY ALL), t AS (SELECT sum(a) AS a FROM n) SELECT entity_id FROM decisions CROSS JOIN t",
        f"{GROUPED}, t AS (SELECT sum(a) AS a FROM n) SELECT entity_id FROM decisions AS d CROSS JOIN t",
        f"{GROUPED} SELECT entity_id, (SELECT sum(a) FROM n) AS a FROM decisions",
        f"{GROUPED} SELECT entity_id FROM decisions AS d JOIN n ON n.a = d.a",
        f"WITH {NEWEST} GROUP BY a, upper(entity)) SELECT entity_id FROM decisions AS d LEFT JOIN n ON {ON}",
        f"WITH {NEWEST.replace('entity, ', 'upper(entity) AS entity, ', 1)} GROUP BY entity) "
        f"SELECT entity_id FROM decisions AS d LEFT JOIN n ON {ON}",
        "WITH n AS (SELECT entity FROM events WHERE entity IN (SELECT entity_id FROM decisions) GROUP BY entity) "
        f"SELECT entity_id FROM decisions AS d LEFT JOIN n ON {ON}",
    ],
)
def test_sql_that_may_compare_decisions(sql: str) -> None:
    """Guards a what-if that would be scored as if nothing else were open."""
    assert not decides_alone(sql)


def test_what_the_use_cases_compare() -> None:
    apart = {
        (usecase.name, stem)
        for usecase in (SETTLEMENT_FAILS, CNS_FAILS)
        for stem, sql in usecase.feature_sql.items()
        if stem != "decisions" and decides_alone(sql)
    }
    assert apart == {("settlement_fails", "status"), ("settlement_fails", "track_record")}
