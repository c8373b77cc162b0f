"""The commands of `ml-assets` about who scores: promote, approve, canary, rollback, history."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ml_assets.cli.opened import UseCaseName, actor_of, platform_of, read_settings, usecase_of
from ml_assets.cli.printed import show
from ml_assets.errors import InputError, StateError

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from ml_assets.database.promotions import LedgerEntry
    from ml_assets.lifecycle.promotion import Promotion


def add_promotions_commands(app: typer.Typer, console: Console) -> None:
    """Add the commands to the command line."""

    @app.command()
    def promote(
        use_case: UseCaseName,
        override: Annotated[
            str, typer.Option(help="promote against the gate, for this reason, which is recorded")
        ] = "",
    ) -> None:
        """Make the challenger champion, if the evidence on its run passes the gate; in the tier high, ask for it."""
        from ml_assets.lifecycle.promotion import promote_challenger

        settings = read_settings()
        platform = platform_of(settings)
        made = promote_challenger(
            platform.registry, platform.engine, usecase_of(settings, use_case), actor_of(settings), override=override
        )
        version = made.challenger.version
        console.print(_gate(use_case, made))
        if made.outcome == "refused":
            raise StateError(
                f"version {version} was not promoted: {made.why}. A person may decide otherwise: "
                '--override "the reason"'
            )
        console.print(f"{use_case} version {version}: {made.outcome}; {made.why}")

    @app.command()
    def approve(
        use_case: UseCaseName,
        reason: Annotated[str, typer.Option(help="why, for the ledger")] = "evidence and model-risk pack reviewed",
        decline: Annotated[bool, typer.Option("--decline", help="say no to the request")] = False,
    ) -> None:
        """Approve the promotion that awaits approval; this must be another person than the one who asked."""
        from ml_assets.database.promotions import open_request
        from ml_assets.lifecycle.promotion import approve as answer

        settings = read_settings()
        platform = platform_of(settings)
        usecase = usecase_of(settings, use_case)
        if request := open_request(platform.engine, use_case):
            _say_verdict(console, platform.engine, use_case, request.mlflow_run_id)
        entry = answer(
            platform.registry, platform.engine, usecase, actor_of(settings), reason=reason,
            decline=decline,
        )  # fmt: skip
        done = f"in canary for {entry.percent}, approved" if entry.action == "canary" else entry.action
        console.print(f"{use_case} version {entry.to_version} {done} by {entry.actor}")

    @app.command()
    def canary(
        use_case: UseCaseName,
        share: Annotated[
            float | None, typer.Option(help="share of the entities for which it answers, for example 0.1")
        ] = None,
        version: Annotated[int | None, typer.Option(min=1, help="the challenger if not given")] = None,
        end: Annotated[bool, typer.Option("--end", help="end the canary that runs")] = False,
        reason: Annotated[str, typer.Option(help="with --end: why, for the ledger")] = "",
    ) -> None:
        """Let a version that passed the gate answer for a share of the entities, or end that.

        A breach of the use case's limits takes it back by itself; `promote` makes it champion.
        """
        from ml_assets.lifecycle.canary import end_canary, start_canary

        if end == (share is not None) or end != bool(reason) or (end and version is not None):
            raise InputError('give either --share 0.1, and --version if you like, or --end --reason "the reason"')
        settings = read_settings()
        platform, usecase = platform_of(settings), usecase_of(settings, use_case)
        if share is None:
            entry = end_canary(platform.engine, usecase, actor_of(settings), reason=reason)
            console.print(f"{use_case} version {entry.to_version}: its canary is ended by {entry.actor}")
            return
        made = start_canary(
            platform.registry, platform.engine, usecase, actor_of(settings), share=share, version=version
        )
        console.print(_gate(use_case, made))
        number = made.challenger.version
        if made.outcome == "refused":
            raise StateError(f"version {number} does not go into canary: {made.why}")
        console.print(f"{use_case} version {number}: {made.outcome}; {made.why}")

    @app.command()
    def rollback(
        use_case: UseCaseName,
        reason: Annotated[str, typer.Option(help="why, for the ledger")],
        to: Annotated[int | None, typer.Option(min=1, help="a former champion; the one before if not given")] = None,
    ) -> None:
        """Make the former champion score again, or put back the one that was moved or deleted in MLflow.

        It takes effect at once; run `score` to score the newest date again.
        """
        from ml_assets.database.status import scored_dates
        from ml_assets.lifecycle.promotion import roll_back

        settings = read_settings()
        platform = platform_of(settings)
        entry = roll_back(
            platform.registry, platform.engine, usecase_of(settings, use_case), actor_of(settings), reason=reason,
            to_version=to,
        )  # fmt: skip
        if entry is None:
            console.print(f"{use_case}: the alias champion is taken away: the ledger has never had a champion")
            return
        if entry.action == "restored":
            console.print(
                f"{use_case}: champion is version {entry.to_version}, as the ledger says; the alias follows it again"
            )
            return
        console.print(
            f"{use_case}: champion is version {entry.to_version} again, instead of {show(entry.from_version)}"
        )
        if scored := scored_dates(platform.engine, use_case, limit=1):
            console.print(
                f"The work-list still shows the other version; `ml-assets score {use_case} --date "
                f"{scored[0].decision_date}` puts this one's predictions there."
            )

    @app.command()
    def history(
        use_case: UseCaseName, rows: Annotated[int, typer.Option(min=1, help="lines to show, newest first")] = 20
    ) -> None:
        """Show the promotion ledger: who made which version champion, when, why, on what evidence."""
        from ml_assets.database.promotions import history as lines_of
        from ml_assets.lifecycle.champion import agreement

        settings = read_settings()
        platform, usecase = platform_of(settings), usecase_of(settings, use_case)
        table = Table(
            "line", "when, UTC", "what", "version", "who", "why", "evidence", "model", title=f"promotions of {use_case}"
        )
        for line in lines_of(platform.engine, use_case, limit=rows):
            table.add_row(
                str(line.id) + (f" (answers {line.request_id})" if line.request_id else ""),
                f"{line.recorded_at.astimezone(UTC):%Y-%m-%d %H:%M:%S}",
                _what(line),
                f"{line.from_version or 'none'} -> {line.to_version}",
                line.actor,
                line.reason,
                (line.evidence_hash or "")[:12],
                (line.model_hash or "not hashed")[:12],
            )
        console.print(table)
        now = agreement(platform.registry, platform.engine, usecase)
        console.print(str(now), style="" if now.agrees else "red")
        _say_verdict(console, platform.engine, use_case)


def _say_verdict(console: Console, engine: Engine, use_case: str, run_id: str | None = None) -> None:
    """Say what outcomes have told of the model in the shadow, if something has been judged; of a run, also if not."""
    from ml_assets.database.monitoring import newest_shadow_verdict

    if verdict := newest_shadow_verdict(engine, use_case, run_id):
        console.print(f"As of {verdict['decision_date']}, {verdict['sentence']}")
    elif run_id is not None:
        console.print("Outcomes have not told yet how it does in the shadow: nothing has been judged")


def _what(line: LedgerEntry) -> str:
    share = (
        "" if line.share is None else f" {line.percent}" if line.action == "canary" else f" as canary {line.percent}"
    )
    return line.action.replace("_", " ") + share


def _gate(use_case: str, made: Promotion) -> Table:
    from ml_assets.governance.conditions import condition_rows, said

    title = f"gate of {use_case} version {made.challenger.version}"
    table = Table("condition", "holds", "measured", "asked", title=title)
    for row in condition_rows(made.verdict.conditions):
        table.add_row(
            row["condition"], "yes" if row["holds"] else Text("no", "red"), said(row["measured"]), row["asked"]
        )
    return table
