import pytest

from ml_assets.features.sql import use_of


def test_what_is_named_is_what_the_parser_sees_and_not_what_the_text_says():
    """Guards against columns loaded, or files made again, for a word in a comment or a string."""
    use = use_of(
        """
        -- now() is not called here, and amount is not read
        WITH paid AS (SELECT Payer, 'getvariable' AS kind FROM Payments JOIN invoices USING (invoice_id))
        SELECT paid."payer" FROM paid
        """
    )
    assert use.tables == {"payments", "invoices"}
    assert use.names == {"payments", "invoices", "paid", "payer", "invoice_id"}
    assert (use.whole_rows, use.star, use.moving) == (False, False, False)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT DISTINCT * FROM t",
        "SELECT a FROM (SELECT * FROM t UNION SELECT * FROM u)",
        "SELECT * FROM t EXCEPT SELECT * FROM u",
        "SELECT a FROM t NATURAL JOIN u",
        "SELECT min(COLUMNS('a.*')) FROM t",
        "SELECT count(DISTINCT t) FROM t",
        "SELECT hash(x) FROM t AS x",
        "SELECT t FROM other.t",
        "SELECT *, count(*) FROM t GROUP BY ALL",
        "WITH p AS (PIVOT t ON a IN (1, 2) USING sum(b)) SELECT * FROM p",
    ],
)
def test_sql_that_compares_whole_rows_needs_all_columns(sql):
    assert use_of(sql).whole_rows


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM t",
        "SELECT DISTINCT a FROM t",
        "SELECT a FROM t UNION ALL SELECT b FROM u",
        "SELECT x.a, count(*) FROM t AS x GROUP BY x.a",
    ],
)
def test_sql_that_names_its_columns_needs_no_others(sql):
    assert not use_of(sql).whole_rows


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT getvariable('as_of')",
        "SELECT a FROM t WHERE b < now()",
        "SELECT CURRENT_DATE",
        "SELECT localtimestamp",
        "SELECT ago(INTERVAL 1 DAY)",  # a macro over the clock
        "SELECT random() AS a FROM t",
        "SELECT a FROM t ORDER BY uuid() LIMIT 1",
        "SELECT a FROM t USING SAMPLE 10%",
        "SELECT nobody_knows_this(a) FROM t",
        "SELECT list_transform(a, lambda x: x + getvariable('y')) FROM t",
    ],
)
def test_what_the_same_rows_may_answer_otherwise_another_time_moves(sql):
    assert use_of(sql).moving


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT nullif(a, 0), coalesce(b, 1), c->>'$.x', list_avg(d) FROM t",
        "SELECT row_number() OVER (ORDER BY a), unnest(b), median(c) FILTER (WHERE d) FROM t",
        "SELECT a, sum(CASE WHEN b IN (1, 2) THEN c::DOUBLE / 2 END) FROM t, range(3) GROUP BY a",
    ],
)
def test_what_follows_from_the_rows_alone_does_not_move(sql):
    assert not use_of(sql).moving


@pytest.mark.parametrize(
    ("sql", "error"),
    [
        ("SELEC 1", "syntax error"),
        ("SELECT 1; SELECT 2", "one SELECT, and is 2 statements"),
        ("DELETE FROM t", "Only SELECT"),
    ],
)
def test_what_is_not_one_select_is_refused(sql, error):
    with pytest.raises(ValueError, match=error):
        use_of(sql)


@pytest.mark.parametrize(
    ("sql", "named"),
    [
        ("SELECT * FROM main.events", r"reads main\.events"),
        ("SELECT * FROM query('SELECT * FROM ' || 'hidden.events')", r"reads query\(\.\.\.\)"),
        ("SELECT * FROM events, 'outcomes.parquet'", r"reads outcomes\.parquet"),
        ("SELECT (SELECT max(a) FROM duckdb_tables) FROM events", "reads duckdb_tables.* it may read events"),
    ],
)
def test_sql_reads_only_the_tables_that_it_may(sql, named):
    use_of("WITH mine AS (FROM Events, range(3)) SELECT * FROM mine, generate_series(1, 3)").refuse_foreign(["events"])
    with pytest.raises(ValueError, match=named):
        use_of(sql).refuse_foreign(["events"])
