"""The boundary between a use case's SQL and the history that it is not to see: the future.

Each test tries what somebody has tried, or could, to read past the decision time or to give a value that does not
follow from the rows known by then.
"""

import dataclasses
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_assets.contracts import TIMESTAMP
from ml_assets.features import AsOfDatabase, as_of
from ml_assets.features.functions import known_functions
from ml_assets.features.sql import _steady, use_of
from ml_assets.spec import DailySpec, Feature
from ml_assets_tests import late_payments
from ml_assets_tests.features.test_as_of import DECIDED, tables

pytestmark = pytest.mark.hostile

MAY = ["invoices", "payments", "payers", "business_days", "decisions"]

READS_OTHER_TABLES = [
    "SELECT * FROM history.payments",
    'SELECT * FROM "history"."payments"',
    'SELECT * FROM "history.payments"',
    'WITH "history.payments" AS (SELECT 1) SELECT * FROM history.payments',
    'WITH "memory.history.payments" AS (SELECT 1) SELECT * FROM memory.history.payments',
    'WITH "main.payments" AS (SELECT 1) SELECT * FROM main.payments',
    "SELECT * FROM memory.main.payments",
    "SELECT * FROM temp.payments",
    "SELECT * FROM HISTORY.Payments",
    "SELECT * FROM information_schema.tables",
    "WITH information_schema AS (SELECT 1) SELECT * FROM information_schema.columns",
    "SELECT * FROM pg_catalog.pg_tables",
    "SELECT * FROM pg_tables",
    "SELECT * FROM duckdb_tables",
    "SELECT * FROM duckdb_columns",
    "SELECT * FROM sqlite_master",
    "SELECT * FROM daily_outcomes",
    "SELECT * FROM today_outcomes",
    "SELECT * FROM feature_group_payer",
    "SELECT * FROM label_of_decisions",
    "SELECT * FROM decisions_before",
    "SELECT * FROM labelled",
    "SELECT * FROM incoming",
    "SELECT * FROM (WITH daily_x AS (SELECT 1) SELECT * FROM daily_x), daily_x",
    "SELECT (WITH daily_x AS (SELECT 1 AS a) SELECT a FROM daily_x) FROM daily_x",
    "WITH daily_x AS (SELECT * FROM daily_x) SELECT * FROM daily_x",
    "WITH RECURSIVE daily_x AS (SELECT a FROM daily_x UNION ALL SELECT a + 1 FROM daily_x WHERE a < 3) FROM daily_x",
    "WITH a AS (SELECT * FROM daily_x), daily_x AS (SELECT 1) SELECT * FROM a",
    "SELECT * FROM invoices WHERE invoice_id IN (SELECT invoice_id FROM history.payments)",
    "SELECT * FROM invoices WHERE EXISTS (FROM history.payments p WHERE p.invoice_id = invoices.invoice_id)",
    "SELECT * FROM invoices i, LATERAL (SELECT * FROM history.payments p WHERE p.invoice_id = i.invoice_id)",
    "SELECT (SELECT max(event_time) FROM history.payments) FROM invoices",
    "SELECT list_transform([1], lambda x: (SELECT count(*) FROM history.payments)) FROM invoices",
    "SELECT CASE WHEN true THEN (SELECT max(a) FROM daily_x) END FROM invoices",
    "SELECT sum(amount) OVER (ORDER BY (SELECT max(a) FROM daily_x)) FROM invoices",
    "SELECT * FROM invoices ORDER BY (SELECT max(a) FROM daily_x)",
    "SELECT * FROM invoices LIMIT (SELECT max(a) FROM daily_x)",
    "SELECT * FROM invoices UNION ALL SELECT * FROM daily_x",
    "SELECT count(*) FILTER (WHERE amount > (SELECT max(a) FROM daily_x)) FROM invoices",
    "SELECT * FROM invoices GROUP BY ALL HAVING count(*) > (SELECT max(a) FROM daily_x)",
    "SELECT * FROM invoices QUALIFY row_number() OVER () > (SELECT max(a) FROM daily_x)",
    "VALUES ((SELECT max(a) FROM daily_x))",
    "FROM (VALUES ((SELECT max(a) FROM daily_x))) v(a)",
    "SELECT * FROM range((SELECT max(a)::BIGINT FROM daily_x))",
    "SELECT * FROM unnest((SELECT list(event_time) FROM history.payments))",
    "FROM (PIVOT daily_x ON a IN (1, 2) USING count(*))",
    "UNPIVOT daily_x ON a, b",
    "SELECT * REPLACE ((SELECT max(a) FROM daily_x) AS amount) FROM invoices",
    "SELECT COLUMNS(*) + (SELECT max(a) FROM daily_x) FROM invoices",
    "SELECT * FROM invoices JOIN daily_x USING (invoice_id)",
    "SELECT * FROM invoices POSITIONAL JOIN history.payments",
    "SELECT * FROM query('SELECT * FROM ' || 'history.payments')",
    "SELECT * FROM query_table('history.payments')",
    "SELECT * FROM json_execute_serialized_sql('{}')",
    "SELECT * FROM duckdb_tables()",
    "SELECT * FROM pragma_table_info('payments')",
    "SELECT * FROM pragma_storage_info('payments')",
    "SELECT * FROM duckdb_variables()",
    "SELECT * FROM seq_scan('history.payments')",
    "SELECT * FROM read_csv('outcomes.csv')",
    "SELECT * FROM read_text('/etc/hostname')",
    "SELECT * FROM glob('*')",
    "SELECT * FROM 'outcomes.parquet'",
    "SELECT * FROM 's3://bucket/outcomes.parquet'",
]

DOES_WHAT_NO_FEATURE_MAY = [
    "SHOW ALL TABLES",
    "SHOW TABLES",
    "DESCRIBE invoices",
    "SUMMARIZE invoices",
    "SELECT * FROM (SHOW ALL TABLES)",
    "SELECT name FROM (DESCRIBE invoices)",
    "SELECT max FROM (SUMMARIZE invoices)",
    "WITH x AS (INSERT INTO invoices SELECT * FROM invoices RETURNING *) SELECT * FROM x",
    "WITH x AS (DELETE FROM payments RETURNING *) SELECT * FROM x",
    "WITH x AS (UPDATE payments SET payer = 'x' RETURNING *) SELECT * FROM x",
    "SELECT * FROM invoices AT (VERSION => 3)",
    "SELECT * FROM invoices AT (TIMESTAMP => TIMESTAMP '2030-01-01')",
    "SELECT * FROM invoices USING SAMPLE 10%",
    "SELECT * FROM invoices TABLESAMPLE reservoir(10 ROWS) REPEATABLE (1)",
    "SELECT * FROM (SELECT * FROM invoices USING SAMPLE 3)",
    "SELECT * FROM invoices POSITIONAL JOIN payments",
    "SELECT $1",
    "SELECT ?",
    "SELECT random()",
    "SELECT a FROM (SELECT 1 AS a) ORDER BY random()",
    "SELECT uuid()",
    "SELECT gen_random_uuid()",
    "SELECT uuidv7()",
    "SELECT setseed(0.5)",
    "SELECT now()",
    "SELECT NOW()",
    "SELECT today()",
    "SELECT current_date",
    "SELECT CURRENT_TIMESTAMP",
    "SELECT localtime",
    "SELECT current_localtimestamp()",
    "SELECT get_current_timestamp()",
    "SELECT get_current_time()",
    "SELECT transaction_timestamp()",
    "SELECT ago(INTERVAL 1 DAY)",
    "SELECT pg_postmaster_start_time()",
    "SELECT age(TIMESTAMP '2020-01-01')",
    "SELECT (TIMESTAMP '2020-01-01').age()",
    "SELECT list_transform([TIMESTAMP '2020-01-01'], lambda t: age(t))",
    "SELECT nextval('s')",
    "SELECT currval('s')",
    "SELECT txid_current()",
    "SELECT current_query()",
    "SELECT current_query_id()",
    "SELECT current_connection_id()",
    "SELECT current_setting('threads')",
    "SELECT current_schemas(true)",
    "SELECT current_database()",
    "SELECT in_search_path('memory', 'main')",
    "SELECT getenv('HOME')",
    "SELECT version()",
    "SELECT stats(event_time) FROM payments",  # the least and the largest of all rows, hidden ones too
    "SELECT p.event_time.stats() FROM payments AS p",
    "SELECT vector_type(event_time) FROM payments",
    "SELECT json_serialize_plan('SELECT * FROM history.payments')",
    "SELECT pg_get_viewdef(1)",
    "SELECT format_type(1, 1)",
    "SELECT get_block_size('memory')",
    "SELECT has_table_privilege('history.payments', 'select')",
    "SELECT write_log('x')",
    "SELECT sleep_ms(10)",
    "SELECT pg_sleep(1)",
    "SELECT error('x')",
    "SELECT reservoir_quantile(amount, 0.5) FROM invoices",
    "SELECT list_aggregate([1, 2], 'reservoir_quantile', 0.5)",
    "SELECT [1, 2].list_aggr('reservoir_quantile', 0.5)",
    "SELECT list_aggregate([1, 2], invoice_id) FROM invoices",
    "SELECT approx_quantile(amount, 0.5) FROM invoices",
    "SELECT nobody_knows_this(amount) FROM invoices",
    "SELECT main.lower(payer) FROM invoices",
    "SELECT system.main.lower(payer) FROM invoices",
    "SELECT 'x'::history.payments",
    "SELECT getvariable('tomorrow')",
    "SELECT getvariable('day_' || 'start')",
    "SELECT getvariable(payer) FROM invoices",
    "SELECT sum(amount) FILTER (WHERE random() < 0.5) FROM invoices",
    "SELECT sum(amount ORDER BY random()) FROM invoices",
    "SELECT sum(amount) OVER (PARTITION BY now()) FROM invoices",
    "SELECT * EXCLUDE (payer) REPLACE (random() AS amount) FROM invoices",
    "WITH a AS (SELECT 1 AS b LIMIT (SELECT random() * 9)) SELECT * FROM a",
    "SELECT * FROM range((random() * 9)::BIGINT)",
    "SELECT * FROM invoices ASOF JOIN payments ON invoices.event_time >= payments.event_time AND now() IS NULL",
]

ALLOWED = [
    "SELECT * FROM invoices",
    'SELECT * FROM "Invoices"',
    "WITH history AS (SELECT 1 AS payments) SELECT history.payments FROM history",
    "SELECT invoices.payer.x FROM (SELECT {'x': 1} AS payer) AS invoices",
    'WITH "history.payments" AS (SELECT 1) SELECT * FROM "history.payments"',
    "WITH a AS (SELECT 1 AS b), c AS (SELECT * FROM a) SELECT * FROM c, (SELECT * FROM c WHERE b IN (SELECT b FROM a))",
    "WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 3) SELECT * FROM n",
    "WITH invoices AS (SELECT * FROM invoices WHERE amount > 0) SELECT * FROM invoices",
    "SELECT * FROM invoices i, LATERAL (SELECT max(event_time) FROM payments p WHERE p.invoice_id = i.invoice_id)",
    "SELECT * FROM invoices ASOF JOIN payments USING (invoice_id, event_time)",
    "FROM (PIVOT payments ON payer IN ('P1', 'P2') USING count(*))",
    "SELECT getvariable('as_of'), getvariable('decision_date'), getvariable('slot')",
    "SELECT list_aggregate([1, 2], 'sum'), list_avg([1]), age(TIMESTAMP '2020-01-01', TIMESTAMP '2021-01-01')",
    "SELECT json_object('a', payer)::VARCHAR, payer LIKE 'P%', payer[1:2], amount::DECIMAL(9, 2) FROM invoices",
    "SELECT row_number() OVER w, lag(amount) OVER w FROM invoices WINDOW w AS (ORDER BY event_time)",
    "SELECT unnest(string_split(payer, ' ')), date_trunc('week', event_time), nullif(amount, 0) FROM invoices",
    "SELECT json_group_object(payer, amount), count_if(amount > 1), median(amount), mode(payer) FROM invoices",
    "SELECT d FROM range(DATE '2026-01-01', getvariable('decision_date'), INTERVAL 1 DAY) AS r(d)",
]


@pytest.mark.parametrize("sql", READS_OTHER_TABLES)
def test_sql_that_reads_other_tables_is_refused(sql):
    with pytest.raises(ValueError, match=r"which is not cut at the as-of time|Only SELECT"):
        use_of(sql).refuse_foreign(MAY)


@pytest.mark.parametrize("sql", DOES_WHAT_NO_FEATURE_MAY)
def test_sql_whose_value_does_not_follow_from_the_rows_is_refused(sql):
    with pytest.raises(ValueError, match=r"must follow from the rows known|which nothing sets here|Only SELECT|AT"):
        use_of(sql).refuse_foreign(MAY)


@pytest.mark.parametrize("sql", ALLOWED)
def test_honest_sql_is_not_refused(sql):
    """Guards against a list that is so short that people look for a way around it."""
    use_of(sql).refuse_foreign(MAY)


NAMES = st.sampled_from(["seen", "hidden", "far.hidden", '"far.hidden"', "seen.hidden", "a", "b"])
MADE = st.sampled_from(["a", "b", "seen", "hidden", '"far.hidden"', "far"])


def _queries() -> st.SearchStrategy[str]:
    read = NAMES.map(lambda name: f"SELECT count(*) AS x FROM {name}")

    def larger(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        with_one = st.tuples(MADE, inner, inner).map(lambda p: f"WITH {p[0]} AS ({p[1]}) {_bare(p[2])}")
        with_two = st.tuples(MADE, inner, MADE, inner, inner).filter(lambda p: p[0] != p[2])
        return st.one_of(
            with_one,
            with_two.map(lambda p: f"WITH {p[0]} AS ({p[1]}), {p[2]} AS ({p[3]}) {_bare(p[4])}"),
            st.tuples(MADE, inner, inner).map(
                lambda p: f"WITH RECURSIVE {p[0]} AS (({p[1]}) UNION ({p[2]})) SELECT count(*) AS x FROM {p[0]}"
            ),
            st.tuples(inner, NAMES).map(lambda p: f"SELECT x FROM ({p[0]}) AS q, {p[1]} AS z(y)"),
            st.tuples(inner, inner).map(lambda p: f"SELECT x FROM ({p[0]}) AS q WHERE x IN ({p[1]})"),
            st.tuples(inner, inner).map(lambda p: f"({p[0]}) UNION ALL ({p[1]})"),
        )

    return st.recursive(read, larger, max_leaves=6)


def _bare(query: str) -> str:
    """Return a query that may stand after a WITH of its own."""
    return f"SELECT * FROM ({query}) AS bare"


@settings(deadline=None, max_examples=300)
@given(_queries())
def test_what_is_accepted_runs_where_nothing_else_exists(sql):
    """Guards against scopes that are read otherwise than DuckDB reads them: nested, recursive, hiding each other."""
    try:
        use_of(sql).refuse_foreign(["seen"])
    except ValueError:
        return
    with duckdb.connect(":memory:") as db:
        db.execute("CREATE TABLE seen AS SELECT 1 AS x")
        db.execute("SET enable_external_access = false")
        try:
            db.execute(sql).fetchall()
        except duckdb.CatalogException as error:
            raise AssertionError(f"{sql} was accepted and reads more than `seen`: {error}") from error
        except (duckdb.BinderException, duckdb.ParserException):
            return


@pytest.fixture(scope="module")
def usecase(tmp_path_factory):
    return late_payments.usecase_of(late_payments.make_package(tmp_path_factory.mktemp("hostile"), "hostile"))


def probed(usecase, sql: str):
    """Late payments with a feature file `probe` that gives everybody the text of all that its SQL gives."""
    made = dataclasses.replace(usecase, features=(*usecase.features, Feature("probe", "Probe", kind="categorical")))
    probe = f"SELECT entity_id, (SELECT string_agg(q::VARCHAR ORDER BY q::VARCHAR) FROM ({sql}\n) AS q) AS probe"
    made.__dict__["feature_sql"] = {**usecase.feature_sql, "probe": f"{probe} FROM decisions"}
    return made


@pytest.mark.parametrize("sql", ALLOWED + READS_OTHER_TABLES + DOES_WHAT_NO_FEATURE_MAY)
def test_no_probe_tells_the_future(usecase, sql):
    """Each probe is refused, fails, or says of the whole history what it says of one cut at the decision time."""
    (decision,) = usecase.decision_times(DECIDED)
    history = tables(usecase, late_payments.messages(16, per_day=12, name="hostile"))
    cut = {
        name: rows.filter(pc.field("known_at") <= pa.scalar(decision.as_of, TIMESTAMP))
        for name, rows in history.items()
    }
    assert sum(rows.num_rows for rows in cut.values()) < sum(rows.num_rows for rows in history.values())
    said = []
    for rows in (history, cut):
        try:
            with AsOfDatabase(probed(usecase, sql), rows, {}, threads=1) as db:
                said.append(db.features(decision).to_pylist())
        except ValueError as error:
            said.append(type(error))
    assert said[0] == said[1]
    if sql in ALLOWED:
        assert said[0] is not ValueError


def test_the_name_of_the_whole_history_cannot_be_written_down(usecase, monkeypatch):
    """Guards the second wall: with the first one gone, there is still no table of that name."""
    monkeypatch.setattr(as_of, "refuse_foreign", lambda _: None)
    (decision,) = usecase.decision_times(DECIDED)
    for sql in ("SELECT * FROM history.payments", "SELECT * FROM memory.history.payments"):
        with (
            AsOfDatabase(probed(usecase, sql), {}, {}, threads=1) as db,
            pytest.raises(ValueError, match="does not exist"),
        ):
            db.features(decision)


@pytest.mark.parametrize(
    ("file", "sql", "why"),
    [
        ("decisions", "SELECT * FROM decisions", "decisions.sql: reads decisions"),  # those of the time before
        ("label", "SELECT entity_id, 1 AS label FROM feature_group_payer", "label.sql: reads feature_group_payer"),
    ],
)
def test_a_file_reads_only_what_is_there_for_it(usecase, file, sql, why):
    made = dataclasses.replace(usecase)
    made.__dict__["feature_sql"] = {**usecase.feature_sql, **({file: sql} if file != "label" else {})}
    if file == "label":
        made.__dict__["label_sql"] = sql
    with pytest.raises(ValueError, match=why):
        AsOfDatabase(made, {}, {}, threads=1)


@pytest.mark.parametrize("stem", ["label", "paid"])
def test_a_feature_file_that_has_another_files_name_is_looked_at_too(usecase, stem):
    """Guards a list by name, in which `label.sql` or a daily table took the place of a feature file."""
    made = dataclasses.replace(usecase, daily=(DailySpec("paid", "Payments."),))
    made.__dict__["daily_sql"] = {"paid": "SELECT count(*) AS n FROM payments"}
    made.__dict__["feature_sql"] = {**usecase.feature_sql, stem: "SELECT entity_id FROM daily_paid"}
    with pytest.raises(ValueError, match=f"features/{stem}.sql: reads daily_paid"):
        AsOfDatabase(made, {}, {}, threads=1)


def test_every_function_that_may_be_called_was_read_by_somebody():
    """Guards an upgrade of DuckDB: a function that is new is on no list, and may tell the time.

    After reading what is new: write the names that this test prints into sql_functions.txt.
    """
    listed = set((Path(__file__).parent / "sql_functions.txt").read_text(encoding="utf-8").splitlines())
    allowed = {name for name in known_functions() if _steady(name) and "collate_" not in name}
    assert allowed == listed, (sorted(allowed - listed), sorted(listed - allowed))
