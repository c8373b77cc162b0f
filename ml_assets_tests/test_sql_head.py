"""The head of an SQL file, and what of it is code."""

from hypothesis import given
from hypothesis import strategies as st

from ml_assets.sql_head import code_of, tags

WORDS = st.text(st.sampled_from("ab-;'\"/*\n "), max_size=20)


def test_tags_come_in_order_and_may_repeat() -> None:
    sql = "-- @title: One: two\n--@column: a | A | text  \n-- no tag\n-- @column: b | B | text\nSELECT '-- @x: y'"
    assert tags(sql) == [("title", "One: two"), ("column", "a | A | text"), ("column", "b | B | text")]


def test_comments_texts_and_quoted_names_are_no_code() -> None:
    sql = "SELECT 1 -- now()\n, 'it''s; now()', \"now\" /* now()\n; */ FROM a"
    assert code_of(sql).split() == ["SELECT", "1", ",", ",", "FROM", "a"]


@given(WORDS)
def test_a_text_hides_nothing_behind_it(words: str) -> None:
    """Guards a text that ends later than PostgreSQL says, and what a guard would not see behind it."""
    quoted = "'" + words.replace("'", "''") + "'"
    assert code_of(f"SELECT {quoted}; DROP").split() == ["SELECT", ";", "DROP"]
