"""Conditions of the gate as people read them."""

from ml_assets.governance.conditions import condition_rows
from ml_assets.learning.gate import Condition


def test_times_numbers_and_what_is_missing_are_for_people() -> None:
    """Guards 2026-03-12T06:00:00+00:00 in the table of the gate."""
    times = ("2026-03-12T06:00:00+00:00", "2026-03-13T07:00:00.250000+00:00")
    unseen, rows, digest, missing = (
        Condition(name=name, value=value, comparison=comparison, threshold=threshold, passed=True, why="why")
        for name, value, comparison, threshold in [
            ("unseen", times[0], "<=", times[1]),
            ("rows", 106_691, ">=", 1),
            ("window", "bd70c649e37fd87f", "==", "bd70c649e37fd87f"),
            ("lift", None, ">=", 0.05),
        ]
    )
    shown = [(row["measured"], row["asked"]) for row in condition_rows([unseen, rows, digest, missing])]
    assert shown == [
        ("2026-03-12 06:00", "at most 2026-03-13 07:00"),
        (106_691, "at least 1"),
        ("bd70c649e37fd87f", "is bd70c649e37fd87f"),
        ("unknown", "at least 0.05"),
    ]
