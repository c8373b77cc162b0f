"""The commands of `ml-assets` that show what there is: status, work-list, explain-prediction, similar, features."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ml_assets.cli.opened import UseCaseName, platform_of, read_settings, usecase_of, usecases_of
from ml_assets.cli.printed import in_words, show
from ml_assets.errors import InputError, StateError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ml_assets.database.promotions import LedgerEntry
    from ml_assets.lifecycle.lineage import PredictionLineage
    from ml_assets.lifecycle.similar import Similar
    from ml_assets.spec import UseCase


_Entity = Annotated[str, typer.Argument(help="the entity, as in the work-list")]
_DecisionTime = Annotated[
    datetime | None,
    typer.Option(formats=["%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"], help="UTC; the newest if not given"),
]


def add_looking_commands(app: typer.Typer, console: Console) -> None:
    """Add the commands to the command line."""

    @app.command()
    def status() -> None:
        """Show for each use case what has landed, who is champion and what was scored last."""
        from ml_assets.database.alerts import last_heartbeat, open_alerts
        from ml_assets.database.promotions import LedgerError
        from ml_assets.lifecycle.champion import ChampionError, settle
        from ml_assets.lifecycle.overview import overview

        settings = read_settings()
        platform = platform_of(settings)
        table = Table("use case", "landed until", "newest features", "champion", "challenger", "newest scores")
        said: list[str | Text] = []
        for usecase in usecases_of(settings):
            try:
                settle(platform.registry, platform.engine, usecase)
            except (ChampionError, LedgerError) as error:
                said.append(Text(str(error), "red"))
            found = overview(platform.lake, platform.registry, platform.engine, usecase)
            versions = [found.champion.to_version if found.champion else None, found.challenger]
            scored = found.newest_scores
            table.add_row(
                usecase.name,
                f"{found.landed_until:%Y-%m-%d %H:%M}" if found.landed_until else "never",
                str(found.newest_features or "none"),
                *(f"version {version}" if version else "none" for version in versions),
                f"{scored.decision_date}: {scored.predictions:,}" if scored else "none",
            )
            said += [f"{usecase.name}: {line}" for line in found.waits]
            if found.late:
                said.append(Text(found.late, "yellow"))
            if request := found.request:
                said.append(
                    f"{usecase.name}: version {request.to_version} awaits approval"
                    f"{'' if request.share is None else ' as canary'}, asked for by {request.actor}; "
                    f"`ml-assets approve {usecase.name}`"
                )
                if found.verdict:
                    said.append(f"{usecase.name}: {found.verdict}")
            if found.canary:
                said.append(_of_canary(found.canary))
        looked = last_heartbeat(platform.engine)
        when = (
            f"rules evaluated last at {looked.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
            if looked
            else "no rule evaluated yet"
        )
        said.append(f"alerts: {len(open_alerts(platform.engine))} open, {when}; `ml-assets alerts list`")
        console.print(table)
        for line in said:
            console.print(line)

    @app.command("work-list")
    def work_list(
        use_case: UseCaseName,
        day: Annotated[
            datetime | None,
            typer.Option("--date", formats=["%Y-%m-%d"], help="date of the outcomes, not of the decisions"),
        ] = None,
        rows: Annotated[int | None, typer.Option(min=1, help="rows to show; the team's capacity if not given")] = None,
    ) -> None:
        """Show what to act on, by expected cost."""
        from ml_assets.cli.printed import print_work_list

        settings = read_settings()
        usecase = usecase_of(settings, use_case)
        print_work_list(platform_of(settings), usecase, console, rows or usecase.capacity, day.date() if day else None)

    @app.command("explain-prediction")
    def explain_prediction(
        use_case: UseCaseName,
        entity: _Entity,
        decision_time: _DecisionTime = None,
        answer: Annotated[
            str, typer.Option(help="id of an answer of the scoring service, or of its request (x-request-id)")
        ] = "",
    ) -> None:
        """Trace a prediction back to model, code, features, data and Kafka offsets, and compute it again."""
        from ml_assets.lifecycle.lineage import explain_answer
        from ml_assets.lifecycle.lineage import explain_prediction as explain

        if answer and decision_time:
            raise InputError("give --decision-time, of a batch, or --answer, of the scoring service, and not both")
        settings = read_settings()
        platform, usecase = platform_of(settings), usecase_of(settings, use_case)
        opened = (platform.lake, platform.registry, platform.engine, usecase, entity)
        if answer:
            found = explain_answer(*opened, answer, threads=settings.threads)
        else:
            at = decision_time.replace(tzinfo=UTC) if decision_time else None
            found = explain(*opened, at, threads=settings.threads)
        print_lineage(console, found)
        if not found.reproduced:
            raise StateError(not_made_again(found))

    @app.command()
    def similar(
        use_case: UseCaseName,
        entity: _Entity,
        decision_time: _DecisionTime = None,
        rows: Annotated[int, typer.Option(min=1, max=100, help="past cases to show")] = 10,
    ) -> None:
        """Show the past cases that are most like a decision, and what came of them."""
        from ml_assets.lifecycle.similar import find_similar

        settings = read_settings()
        platform, usecase = platform_of(settings), usecase_of(settings, use_case)
        at = decision_time.replace(tzinfo=UTC) if decision_time else None
        found = find_similar(
            platform.lake, platform.registry, platform.engine, usecase, entity, at, limit=rows,
            threads=settings.threads,
        )  # fmt: skip
        print_similar(console, usecase, found)

    @app.command()
    def features() -> None:
        """Print the catalogue of features as Markdown, which is the content of `docs/features.md`."""
        from ml_assets.features import catalogue_page

        typer.echo(catalogue_page(usecases_of(read_settings())), nl=False)


def print_lineage(console: Console, found: PredictionLineage) -> None:
    """Print where a score comes from, what it was made of, and what is made again."""
    said, run, promotion = found.prediction, found.run, found.promotion
    facts = Table(title=f"{said['entity_id']}, decided {said['decision_time'].astimezone(UTC):%Y-%m-%d %H:%M} UTC")
    facts.add_column("what")
    facts.add_column("where it comes from", overflow="fold")
    by = f"{promotion.actor}, {_utc(promotion.recorded_at)}: {promotion.reason}" if promotion else "no line"
    trained = json.loads(run.tags.get("data_versions", "{}"))
    scored = _of_answer(said) if found.features is None else _of_batch(said)
    for what, where in {
        "probability": f"{said['probability']:.9f}, expected cost {said['expected_cost']:,.2f}",
        "model": f"version {said['model_version']}, {run.tags.get('candidate')}",
        **scored,
        "put into canary by" if promotion and promotion.action == "canary" else "made champion by": by,
        "evidence": promotion.evidence_hash or "none" if promotion else "none",
        "MLflow run": f"{run.run_id}, as of {run.tags.get('training_date')}, Dagster {run.tags.get('dagster_run_id')}",
        "trained with code": run.tags.get("git_commit"),
        "trained on": ", ".join(f"{name} v{version}" for name, version in trained.items()),
        "feature set": said["feature_set_hash"],
        "made from": ", ".join(f"{name} v{version}" for name, version in found.curated_versions.items()),
        "made again, stored features": show(found.probability_again, 9),
        "made again, from the events": show(found.probability_anew, 9),
        "reproduced": "yes" if found.reproduced else "no",
    }.items():
        facts.add_row(what, str(where))
    console.print(facts)
    values = Table("feature", "scored", "made again", title="features")
    stored, again = found.features or {}, found.features_again or {}
    for name in stored or again:
        values.add_row(
            name, show(stored.get(name)), show(again.get(name)), style="red" if name in found.differing else ""
        )
    console.print(values)
    events = Table("known at, UTC", "event", "id", "topic", "partition", "offset", title="its events, known by then")
    for source in found.sources:
        events.add_row(
            f"{source.known_at.astimezone(UTC):%Y-%m-%d %H:%M:%S}", source.event, source.event_id, source.topic,
            show(source.kafka_partition), show(source.kafka_offset),
        )  # fmt: skip
    console.print(events)


def print_similar(console: Console, usecase: UseCase, found: Similar) -> None:
    """Print a decision's nearest past cases, and what they come to beside its probability."""
    said, word = found.prediction, usecase.label.probability_of
    table = Table(title=f"past cases like {said['entity_id']}, decided {_utc(said['decision_time'])}, {said['slot']}")
    for column in (usecase.entity, "what it was"):
        table.add_column(column, overflow="fold")
    table.add_column("decided, UTC")
    table.add_column(f"p({word})", justify="right")
    table.add_column("came out")
    if usecase.causes:
        table.add_column("likely reason")
    table.add_column("what was done")
    table.add_column("apart, log-odds", justify="right")
    for case in found.cases:
        codes = case.reason_codes or {}
        table.add_row(
            case.entity_id, in_words(case.attributes, case.entity_id), f"{case.decision_time.astimezone(UTC):%Y-%m-%d}",
            f"{case.probability:.3f}", Text(word, "red") if case.label else f"no {word}",
            *((str(codes.get("cause") or ""),) if usecase.causes else ()),
            case.done(usecase.causes), f"{case.distance:.2f}",
        )  # fmt: skip
    console.print(table)
    console.print(found.said(usecase), highlight=False)


def not_made_again(found: PredictionLineage) -> str:
    """Return how what was said and what is made again differ."""
    said, anew = f"{found.prediction['probability']:.9f}", show(found.probability_anew, 9)
    if found.features is None:
        return (
            f"the number was not made again: the service said {said}, the saved model gives {anew} for the features of "
            f"{_utc(found.prediction['decision_time'])}. Ingest what has landed, and ask again. What landed in the "
            "seconds before the answer may not have been in its table yet"
        )
    return (
        f"the number was not made again: {said} was written, the saved model gives {show(found.probability_again, 9)} "
        f"for the stored features, and {anew} for those made anew; features that differ: "
        f"{', '.join(found.differing) or 'none'}"
    )


def _of_batch(said: Mapping[str, Any]) -> dict[str, str]:
    """Return what only a batch says of a score."""
    return {
        "rank": show(said["rank"]),
        "reasons": _causes(said["reason_codes"]),
        "registered as": said["model_name"],
        "scored with code": f"{said['git_commit']}, Dagster {said['dagster_run_id']}, {_utc(said['scored_at'])}",
        "features": ", ".join(f"{name} v{version}" for name, version in said["data_versions"].items()),
    }


def _of_answer(said: Mapping[str, Any]) -> dict[str, str]:
    """Return what only the scoring service says of a score."""
    late = "; its table was behind" if said["stale"] else ""
    return {
        "answered": f"{_utc(said['event_time'])} as {said['stage']} in {said['latency_ms']:.1f} ms{late}",
        "slot": said["slot"],
        "request": said["request_id"],
        "answer": f"{said['event_id']}, partition {show(said['kafka_partition'])}, offset {show(said['kafka_offset'])}",
    }


def _utc(moment: datetime) -> str:
    """Return a time as people read it, whatever the time zone of the database's session is."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _causes(codes: dict[str, Any] | None) -> str:
    """Return the sum that the reasons are: base and contributions, in log-odds."""
    if codes is None:
        return "not on the team's list (beyond its capacity, or not worth acting on), so none were found"
    ordered = sorted(codes["contributions"].items(), key=lambda item: -item[1])
    shared = " ".join(f"{value:+.3f} {cause}" for cause, value in ordered)
    return f"log-odds {codes['log_odds']:.3f} = {codes['base']:.3f} base {shared}; {codes['action'] or 'no action'}"


def _of_canary(line: LedgerEntry) -> str | Text:
    """Return what a person should know of the canary that runs, or of the one that ended last."""
    when = f"{line.recorded_at.astimezone(UTC):%Y-%m-%d %H:%M}"
    if line.action == "canary":
        return (
            f"{line.use_case}: version {line.to_version} is in canary for {line.percent} of the entities since {when}, "
            f'by {line.actor}; `ml-assets canary {line.use_case} --end --reason "..."` ends it'
        )
    said = f"{line.use_case}: the canary of version {line.to_version} was ended {when} by {line.actor}: {line.reason}"
    return said if line.is_person else Text(said, "yellow")
