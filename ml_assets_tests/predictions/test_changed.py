from datetime import date

from hypothesis import given
from hypothesis import strategies as st

from ml_assets.answers import ChangedScore
from ml_assets.predictions.changed import Score, remember, to_tell

DAYS = (date(2026, 1, 5), date(2026, 1, 6))
SCORES = st.builds(
    Score, st.floats(0, 1), st.sampled_from(DAYS), st.sampled_from(["open", "close"]), st.sampled_from(["run1", "run2"])
)
TABLES = st.dictionaries(st.sampled_from("abcd"), SCORES)
LEAST = st.floats(0, 0.5)


@given(st.lists(st.tuples(TABLES, st.sets(st.sampled_from("abcd"))), max_size=8), TABLES, LEAST)
def test_a_consumer_is_never_further_off_than_the_set_amount(history, last, least):
    """Whatever was lost on the way, once a table's scores are delivered the consumer has them, and nothing twice."""
    told: dict[str, Score] = {}
    consumer: dict[str, Score] = {}

    def tell(table, arrives) -> None:
        nonlocal told
        delivered = [entity for entity in to_tell(told, table, least) if arrives(entity)]
        consumer.update({entity: table[entity] for entity in delivered})
        told = remember(told, table, delivered)

    for table, lost in history:
        tell(table, lambda entity, lost=lost: entity not in lost)
    tell(last, lambda _: True)
    for entity, score in last.items():
        assert consumer[entity][1:] == score[1:]
        assert abs(consumer[entity].probability - score.probability) <= least
    assert to_tell(told, last, least) == []
    assert set(told) == set(last)


@given(TABLES, LEAST)
def test_after_a_restart_everything_is_told_again_with_the_same_ids(table, least):
    def ids(table):
        return [
            ChangedScore.id_of("case", entity, score.decision_date, score.slot, score.mlflow_run_id, score.probability)
            for entity, score in ((entity, table[entity]) for entity in to_tell({}, table, least))
        ]

    assert len(ids(table)) == len(table)
    assert ids(dict(table)) == ids(table)
    assert len(set(ids(table))) == len(table), "no two scores share an id"


def test_only_more_than_the_set_amount_is_told():
    before = {"a": Score(0.25, DAYS[0], "open", "run1")}
    assert to_tell(before, {"a": Score(0.5, DAYS[0], "open", "run1")}, 0.25) == []
    assert to_tell(before, {"a": Score(0.51, DAYS[0], "open", "run1")}, 0.25) == ["a"]
    assert to_tell(before, {"a": Score(0.25, DAYS[0], "open", "run2")}, 0.25) == ["a"]
    assert to_tell(before, {"a": Score(0.25, DAYS[1], "open", "run1")}, 0.25) == ["a"]
