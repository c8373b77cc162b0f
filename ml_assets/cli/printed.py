"""What several commands print: a work-list, and a model month by month.

This module shows rows that a stage returned. It does no stage's work, and holds nothing that only one command shows.
"""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ml_assets.platform import Platform
    from ml_assets.spec import UseCase

# Log-odds that a cause must add to be shown: it makes a fail a tenth likelier.
_WORTH_SAYING = 0.1


def print_work_list(
    platform: Platform, usecase: UseCase, console: Console, limit: int, day: date | None = None
) -> None:
    """Print the first rows of a work-list, by default of the newest."""
    from ml_assets.database.work_list import next_outcome_date, work_list

    day = day or next_outcome_date(platform.engine, usecase.name)
    rows = work_list(platform.engine, usecase.name, day, limit) if day else []
    if not rows:
        empty = f"The work-list of {usecase.name} is empty" + (f" for outcomes of {day}" if day else "")
        newest = next_outcome_date(platform.engine, usecase.name)
        console.print(
            f"{empty}; `ml-assets work-list {usecase.name} --date {newest}` has the newest: the date is that of the "
            "outcome, not of the decision"
            if newest
            else f"{empty}; score a date first: `ml-assets score {usecase.name} --date <decision date>`"
        )
        return
    worth = [row for row in rows if usecase.action.pays(row["expected_cost"])]
    line = f"below the line: {usecase.action.below_the_line(usecase.currency)}"
    if not worth:
        console.print(f"Nothing is worth acting on for outcomes of {day}: all of {usecase.name} is {line}")
        return
    table = Table(
        title=f"{usecase.title}: work-list for {day}, the first {len(worth)} by expected cost",
        caption=f"{len(rows) - len(worth)} of the first {len(rows)} are {line}" if len(worth) < len(rows) else None,
    )
    table.add_column("#", justify="right")
    table.add_column(usecase.entity, no_wrap=True)
    table.add_column("what it is")
    table.add_column(f"p({usecase.label.probability_of})", justify="right")
    table.add_column(f"cost, {usecase.currency}", justify="right")
    if usecase.causes:
        table.add_column("why, log-odds")
        table.add_column("what to do")
    for row in worth:
        table.add_row(
            str(row["priority"]), row["entity_id"], in_words(row["attributes"], row["entity_id"]),
            f"{row['probability']:.3f}", f"{row['expected_cost']:,.0f}",
            *(_reasons(row["reason_codes"], row["attributes"]) if usecase.causes else ()),
        )  # fmt: skip
    console.print(table)


def in_words(attributes: Mapping[str, Any] | None, entity_id: str) -> str:
    """Return what a decision is about, but its entity."""
    return " · ".join(
        f"{name.replace('_', ' ')} {_show(value)}"
        for name, value in (attributes or {}).items()
        if value != entity_id and value is not None
    )


def _reasons(codes: dict[str, Any] | None, attributes: dict[str, Any] | None) -> tuple[str, str]:
    """Return the causes that raise the probability, and what is done about the main one, which is always among them."""
    from ml_assets.predictions.control import action_of

    if codes is None:
        return "", ""
    # JSONB does not keep an order.
    ordered = sorted(codes["contributions"].items(), key=lambda item: -item[1])
    raising = [
        f"{cause} {value:+.1f}" if value >= _WORTH_SAYING else f"{cause} {value:+.2f}"
        for cause, value in ordered
        if value >= _WORTH_SAYING or cause == codes["cause"]
    ]
    return ", ".join(raising), action_of(codes, attributes)


def print_months(usecase: UseCase, window: Any, model: Any, rule: Any, title: str, console: Console) -> None:
    """Print a model against the rule, month by month: (n,) probabilities each, in the order of the window."""
    from ml_assets.lifecycle.backtest import by_month

    table = Table(title=title)
    for column in ("decisions", "month"):
        table.add_column(column)
    for column in (
        "n",
        "base rate",
        "PR-AUC a day",
        "the rule's",
        "gain",
        "ROC-AUC",
        "the rule's",
        "calibration error",
    ):
        table.add_column(column, justify="right")
    for row in by_month(usecase, window, model, rule).to_dict("records"):
        table.add_row(
            row["decisions"], row["month"], f"{row['n']:,}", f"{row['base_rate']:.3f}", f"{row['per_day_pr_auc']:.3f}",
            f"{row['rule_per_day_pr_auc']:.3f}", f"{row['gain']:+.1%}", f"{row['roc_auc']:.3f}",
            f"{row['rule_roc_auc']:.3f}", f"{row['calibration_error']:.3f}",
        )  # fmt: skip
    console.print(table)


def show(value: float | str | None, digits: int = 4) -> str:
    """Return a value with some significant digits, for people who compare it with another."""
    if value is None:
        return "unknown"
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)


def _show(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.2f}"
    return "" if value is None else str(value)
