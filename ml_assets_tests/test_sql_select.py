"""What a report or an alert may be."""

import pytest

from ml_assets.errors import InputError
from ml_assets.sql_select import refuse_unless_select


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*) FILTER (WHERE a) OVER (PARTITION BY b) FROM work_list GROUP BY GROUPING SETS ((), (b))",
        "WITH x AS MATERIALIZED (SELECT 1) SELECT * FROM x WHERE EXISTS (SELECT FROM y) AND z IN (1, 2)",
        "SELECT * FROM (VALUES (1, 'now()')) AS rows(a, b) -- pg_sleep(1)",
        'SELECT "now" FROM work_list',
        "SELECT a::numeric(10, 2), CAST(b AS varchar(3)) FROM (SELECT 1) AS t",
    ],
)
def test_a_select_may_be_run(sql: str) -> None:
    refuse_unless_select("a.sql", sql, "rule")


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("SELECT now()", "it names now"),
        ("SELECT * FROM public.promotions", "it names public"),
        ("SELECT 1; DELETE FROM promotions", "a rule is one SELECT"),
        ("SELECT pg_read_file('/etc/passwd')", "it calls pg_read_file"),
        ("SELECT pg_read_file/* */ ('/etc/passwd')", "it calls pg_read_file"),
        ("SELECT 1, dblink('host=elsewhere', 'SELECT 1')", "it calls dblink"),
        ("SELECT query_to_xml('SELECT now()', true, true, '')", "it calls query_to_xml"),
        ('SELECT "pg_sleep" (9)', 'it calls "'),
        ('SELECT "--", pg_sleep(9)', "it calls pg_sleep"),
        ("SELECT $$'$$ || pg_sleep(9) || $$'$$", "it has a $ outside of a text"),
        ("SELECT E'\\'', pg_sleep(9), ''", "it has a text that begins with E'"),
        ("SELECT set_config('transaction_read_only', 'off', true)", "it calls set_config"),
        ("SELECT pg_catalog.pg_sleep(9)", "it names pg_catalog"),
    ],
)
def test_what_reaches_out_is_refused(sql: str, said: str) -> None:
    """Guards a SELECT that cannot write and still sleeps, reads files of the server or asks another one."""
    with pytest.raises(InputError) as refused:
        refuse_unless_select("a.sql", sql, "rule")
    assert str(refused.value).startswith("a.sql: ")
    assert said in str(refused.value)
