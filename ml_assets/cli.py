"""`ml-assets`: the command line. Each command is a few lines that call what Dagster calls too."""

from __future__ import annotations

import json
import os
import shutil
import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ml_assets.cli_backup import add_backup_commands
from ml_assets.cli_landing import add_landing_commands
from ml_assets.cli_model_report import add_model_report
from ml_assets.settings import Settings

if TYPE_CHECKING:
    from ml_assets.database.promotions import Actor
    from ml_assets.demo import Scenario
    from ml_assets.lifecycle.lineage import PredictionLineage
    from ml_assets.resources import Platform
    from ml_assets.spec import UseCase

_UNKNOWN_WIDTH = 80  # what rich takes for granted where nothing tells

app = typer.Typer(
    help="The ML lifecycle of Markets Operations. Settings are environment variables ML_ASSETS_..., or lines in .env.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _console() -> Console:
    """Return the console: as wide as the terminal, and wide enough for a work-list where there is none."""
    found = Console()
    return found if found.is_terminal or found.width != _UNKNOWN_WIDTH else Console(width=140)


console = _console()
add_backup_commands(app, console)
add_landing_commands(app, console)
add_model_report(app, console)

UseCaseName = Annotated[str, typer.Argument(help="name of a use case; `ml-assets status` lists them")]


@app.command()
def demo(
    use_case: Annotated[str, typer.Option(help="settlement_fails (simulated) or cns_fails (SEC files)")] = (
        "settlement_fails"
    ),
    data: Annotated[Path | None, typer.Option(help="folder of the SEC files, for cns_fails")] = None,
    days: Annotated[int, typer.Option(min=25, help="business days to simulate")] = 60,
    instructions: Annotated[int, typer.Option(min=100, help="settlement instructions a day")] = 4000,
    seed: Annotated[int, typer.Option(help="seed of the simulation")] = 20260105,
    stress: Annotated[bool, typer.Option(help="simulate a stress regime")] = False,
    fresh: Annotated[bool, typer.Option(help="delete everything that earlier demos made, and start anew")] = False,
) -> None:
    """Run the whole lifecycle on this machine: broker, lake, features, training, registration, scoring."""
    from ml_assets.demo import run_demo

    settings = Settings()
    if fresh:
        _stop_servers(settings)
        shutil.rmtree(settings.home_path, ignore_errors=True)
    if use_case == "cns_fails":
        scenario = _replayed(data)
    elif use_case == "settlement_fails":
        scenario = _simulated(settings, days, instructions, seed, stress)
    else:
        raise ValueError(f"there is no demo of {use_case!r}; there are settlement_fails and cns_fails")
    try:
        run_demo(settings, scenario, console)
    finally:
        _stop_servers(settings)


@app.command()
def simulate(
    days: Annotated[int, typer.Option(min=1, help="business days")] = 60,
    instructions: Annotated[int, typer.Option(min=1, help="settlement instructions a day")] = 4000,
    start: Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help="first business day")] = datetime(2026, 1, 5),  # noqa: DTZ001 - a day
    seed: Annotated[int, typer.Option()] = 20260105,
    stress: Annotated[bool, typer.Option(help="a fortnight of stress")] = False,
    dirty: Annotated[float, typer.Option(min=0, max=0.5, help="share of duplicate, late, malformed messages")] = 0.002,
) -> None:
    """Simulate a market and produce its events to Kafka; reference files and the truth go below the home folder."""
    from ml_assets.object_store import use_s3
    from ml_assets.simulation.market import MarketConfig, simulate

    settings = Settings()
    use_s3(settings)
    market = simulate(
        MarketConfig(
            start=start.date(), days=days, instructions_per_day=instructions, seed=seed, stress=stress, dirty=dirty
        )
    )
    market.write_reference(settings.reference_uri)
    market.write_truth(_truth(settings))
    _produce(settings, market)


@app.command("replay-sec")
def replay_sec(
    data: Annotated[Path, typer.Argument(help="folder of cnsfailsYYYYMM{a|b}.txt.xz")],
    until: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="last publication date")] = None,
) -> None:
    """Produce the SEC's fails-to-deliver files to Kafka, in order of publication."""
    from ml_assets.simulation.sec_ftd import replay

    replayed = replay(data, until=until.date() if until else None)
    _say_what_is_missing(replayed)
    _produce(Settings(), replayed)


@app.command()
def ingest(
    use_case: UseCaseName,
    first: Annotated[datetime, typer.Option("--from", formats=["%Y-%m-%d"], help="first date")],
    last: Annotated[datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="last date")] = None,
) -> None:
    """Make curated events, features and labels of dates from what has landed."""
    _run(use_case, "ingest", first.date(), (last or first).date())


@app.command()
def retrain(
    use_case: UseCaseName,
    day: Annotated[datetime, typer.Option("--date", formats=["%Y-%m-%d"], help="train as of this date")],
) -> None:
    """Train, compare, register, and promote if the gate says yes."""
    _run(use_case, "retrain", day.date(), day.date())


@app.command()
def score(
    use_case: UseCaseName,
    first: Annotated[datetime, typer.Option("--date", "--from", formats=["%Y-%m-%d"], help="date to score")],
    last: Annotated[datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="last date")] = None,
) -> None:
    """Score dates with the champion."""
    _run(use_case, "score", first.date(), (last or first).date())


@app.command()
def promote(
    use_case: UseCaseName,
    override: Annotated[str, typer.Option(help="promote against the gate, for this reason, which is recorded")] = "",
) -> None:
    """Make the challenger champion, if the evidence on its run passes the gate; in the tier high, ask for it."""
    from ml_assets.lifecycle.promotion import promote_challenger

    settings = Settings()
    platform = _platform(settings)
    made = promote_challenger(
        platform.registry, platform.engine, _usecase(settings, use_case), _actor(settings), override=override
    )
    version = made.challenger.version
    table = Table("condition", "value", "", "threshold", "holds", title=f"gate of {use_case} version {version}")
    for condition in made.verdict.conditions:
        table.add_row(
            condition.name, _show(condition.value), condition.comparison, _show(condition.threshold),
            "yes" if condition.passed else "[red]no[/]",
        )  # fmt: skip
    console.print(table)
    if made.outcome == "refused":
        raise RuntimeError(
            f'version {version} was not promoted: {made.why}. A person may decide otherwise: --override "the reason"'
        )
    console.print(f"{use_case} version {version}: {made.outcome}; {made.why}")


@app.command()
def approve(
    use_case: UseCaseName,
    reason: Annotated[str, typer.Option(help="why, for the ledger")] = "evidence and model-risk pack reviewed",
    decline: Annotated[bool, typer.Option("--decline", help="say no to the request")] = False,
) -> None:
    """Approve the promotion that awaits it, as another person than the one who asked."""
    from ml_assets.lifecycle.promotion import approve as answer

    settings = Settings()
    platform = _platform(settings)
    entry = answer(
        platform.registry, platform.engine, _usecase(settings, use_case), _actor(settings), reason=reason,
        decline=decline,
    )  # fmt: skip
    console.print(f"{use_case} version {entry.to_version} {entry.action} by {entry.actor}")


@app.command()
def rollback(
    use_case: UseCaseName,
    reason: Annotated[str, typer.Option(help="why, for the ledger")],
    to: Annotated[int | None, typer.Option(min=1, help="a former champion; the one before if not given")] = None,
) -> None:
    """Make the former champion score again. Takes effect at once; the newest date is scored anew by `score`."""
    from ml_assets.database.status import scored_dates
    from ml_assets.lifecycle.promotion import roll_back

    settings = Settings()
    platform = _platform(settings)
    entry = roll_back(
        platform.registry, platform.engine, _usecase(settings, use_case), _actor(settings), reason=reason,
        to_version=to,
    )  # fmt: skip
    console.print(f"{use_case}: champion is version {entry.to_version} again, instead of {_show(entry.from_version)}")
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
    from ml_assets.lifecycle.promotion import agreement

    settings = Settings()
    platform, usecase = _platform(settings), _usecase(settings, use_case)
    table = Table("line", "when, UTC", "what", "version", "who", "why", "evidence", title=f"promotions of {use_case}")
    for line in lines_of(platform.engine, use_case, limit=rows):
        table.add_row(
            str(line.id) + (f" (answers {line.request_id})" if line.request_id else ""),
            f"{line.recorded_at.astimezone(UTC):%Y-%m-%d %H:%M:%S}",
            line.action.replace("_", " "),
            f"{line.from_version or 'none'} -> {line.to_version}",
            line.actor,
            line.reason,
            (line.evidence_hash or "")[:12],
        )
    console.print(table)
    now = agreement(platform.registry, platform.engine, usecase)
    console.print(str(now), style="" if now.agrees else "red")


@app.command("reproduce")
def reproduce_version(
    use_case: UseCaseName, version: Annotated[int, typer.Argument(min=1, help="version of the model")]
) -> None:
    """Make a model again from the data versions that it was trained on, and compare rows, parameters, probabilities."""
    from ml_assets.lifecycle.reproduce import reproduce

    settings = Settings()
    platform = _platform(settings)
    made = reproduce(
        platform.lake, platform.registry, _usecase(settings, use_case), version, code_version=platform.code,
        threads=settings.threads,
    )  # fmt: skip
    table = Table("what", "on record", "made again", "same", title=f"{use_case} version {version}, made again")
    for compared in made.comparisons:
        table.add_row(compared.what, compared.recorded, compared.made_again, "yes" if compared.same else "[red]no[/]")
    console.print(table)
    if made.code != made.code_now:
        console.print(f"It was trained by commit {made.code or 'unknown'}; this is {made.code_now or 'unknown'}.")
    if not made.same:
        raise RuntimeError(f"version {version} did not come out the same; see above")
    console.print("The same model.")


@app.command("backtest")
def backtest_version(
    use_case: UseCaseName,
    first: Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help="first decision date")],
    last: Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help="last decision date")],
    version: Annotated[int | None, typer.Option(min=1, help="version of the model; the champion if not given")] = None,
) -> None:
    """Try a saved model, as it is, on later days of known outcome: by month, against the rule trained beside it."""
    from ml_assets.demo import print_months
    from ml_assets.lifecycle.backtest import backtest

    settings = Settings()
    platform, usecase = _platform(settings), _usecase(settings, use_case)
    tried = backtest(
        platform.lake, platform.registry, usecase, first.date(), last.date(), version=version, threads=settings.threads
    )
    title = f"{use_case} version {tried.version}, trained on what was known by {tried.trained_until:%Y-%m-%d}"
    print_months(usecase, tried.window, tried.model, tried.rule, title, console)


@app.command("work-list")
def work_list(
    use_case: UseCaseName,
    day: Annotated[datetime | None, typer.Option("--date", formats=["%Y-%m-%d"], help="outcome date")] = None,
    rows: Annotated[int | None, typer.Option(min=1, help="rows to show; the team's capacity if not given")] = None,
) -> None:
    """Show what to act on, by expected cost."""
    from ml_assets.demo import print_work_list

    settings = Settings()
    usecase = _usecase(settings, use_case)
    print_work_list(_platform(settings), usecase, console, rows or usecase.capacity, day.date() if day else None)


@app.command("explain-prediction")
def explain_prediction(
    use_case: UseCaseName,
    entity: Annotated[str, typer.Argument(help="the entity, as in the work-list")],
    decision_time: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"], help="UTC; the newest if not given"),
    ] = None,
) -> None:
    """Walk from a prediction back to model, code, features, data and Kafka offsets, and make the number again."""
    from ml_assets.lifecycle.lineage import explain_prediction as explain

    settings = Settings()
    platform = _platform(settings)
    at = decision_time.replace(tzinfo=UTC) if decision_time else None
    found = explain(
        platform.lake, platform.registry, platform.engine, _usecase(settings, use_case), entity, at,
        threads=settings.threads,
    )  # fmt: skip
    _print_lineage(found)
    if not found.reproduced:
        raise RuntimeError(
            f"the number was not made again: {found.prediction['probability']:.9f} was written, the saved model gives "
            f"{found.probability_again:.9f} for the stored features, and {_show(found.probability_anew, 9)} for those "
            f"made anew; features that differ: {', '.join(found.differing) or 'none'}"
        )


@app.command()
def features() -> None:
    """Print the catalogue of features as Markdown; `docs/features.md` is this."""
    from ml_assets.features import catalogue_page

    typer.echo(catalogue_page(_usecases(Settings())), nl=False)


@app.command()
def status() -> None:
    """Show for each use case what has landed, who is champion and what was scored last."""
    from ml_assets.database.promotions import open_request
    from ml_assets.database.status import scored_dates
    from ml_assets.lake import features_table
    from ml_assets.landing.landed import landed_watermark
    from ml_assets.lifecycle.promotion import agreement
    from ml_assets.registry import CHALLENGER, CHAMPION

    settings = Settings()
    platform = _platform(settings)
    table = Table("use case", "landed until", "newest features", "champion", "challenger", "newest scores")
    said: list[str] = []
    for usecase in _usecases(settings):
        landed = landed_watermark(platform.lake, usecase.events)
        made = [file.partition for file in platform.lake.files(features_table(usecase), "decision_date") if file.rows]
        versions = [platform.registry.resolve(usecase.name, alias) for alias in (CHAMPION, CHALLENGER)]
        scored = scored_dates(platform.engine, usecase.name, limit=1)
        table.add_row(
            usecase.name,
            f"{landed:%Y-%m-%d %H:%M}" if landed else "never",
            str(max(made, default="none")),
            *(f"version {version.version}" if version else "none" for version in versions),
            f"{scored[0].decision_date}: {scored[0].predictions:,}" if scored else "none",
        )
        if not (now := agreement(platform.registry, platform.engine, usecase)).agrees:
            said.append(f"[red]{usecase.name}: {now}[/]; `ml-assets history {usecase.name}` shows the ledger")
        if request := open_request(platform.engine, usecase.name):
            said.append(
                f"{usecase.name}: version {request.to_version} awaits approval, asked for by {request.actor}; "
                f"`ml-assets approve {usecase.name}`"
            )
    console.print(table)
    for line in said:
        console.print(line)


@app.command()
def prepare() -> None:
    """Make or migrate the tables of MLflow and of the application."""
    platform = _platform(Settings())
    platform.registry.prepare()
    assert platform.engine  # noqa: S101 - opening it migrates it
    platform.close()


@app.command("migrate")
def migrate_database() -> None:
    """Migrate the application's database and grant the roles their rights: what the migration Job does."""
    from ml_assets.database import migrate
    from ml_assets.embedded.environment import database_url

    changed = migrate(database_url(Settings()))
    console.print("the database has been migrated" if changed else "the database is up to date")


@app.command("roles-sql")
def roles_sql(
    database: Annotated[str, typer.Option(help="name of the application's database")] = "ml_assets",
) -> None:
    """Print the SQL with which an administrator makes the database's roles, once."""
    from ml_assets.database.roles import create_roles_sql

    typer.echo(create_roles_sql(database), nl=False)


@app.command()
def ui(port: Annotated[int, typer.Option(help="port of the web server")] = 3000) -> None:
    """Open the Dagster UI with its daemon, on embedded servers, until Ctrl-C."""
    from ml_assets.embedded.environment import environment_for
    from ml_assets.embedded.foreground import run_until_told

    settings = Settings()
    environment = {**os.environ, **environment_for(settings)}
    program = Path(sys.executable).with_name("dagster")
    command = [str(program), "dev", "-m", "ml_assets.definitions", "-p", str(port)]
    console.print(f"The Dagster UI comes up on http://localhost:{port}; Ctrl-C ends it.")
    try:
        run_until_told(command, environment)
    finally:
        _stop_servers(settings, used_only=True)


@app.command()
def stop() -> None:
    """Stop the embedded servers that other commands have left running."""
    _stop_servers(Settings())


def main() -> None:
    """Run the command line; an error that a person can act on is one line, not a traceback."""
    try:
        app()
    except _foreseen() as error:
        if Settings().traceback:
            raise
        Console(stderr=True).print("[red]error:[/]", Text(str(getattr(error, "orig", error)).strip()), highlight=False)
        sys.exit(1)


def _foreseen() -> tuple[type[Exception], ...]:
    """Return the errors that a person can act on: bad input, and a server that refuses or does not answer."""
    from psycopg import OperationalError
    from sqlalchemy.exc import OperationalError as EngineError

    # Imported only if it was: it takes seconds.
    mlflow = sys.modules.get("mlflow.exceptions")
    refused = (mlflow.MlflowException,) if mlflow else ()
    return (
        ValueError,
        LookupError,
        OSError,
        ModuleNotFoundError,
        RuntimeError,
        OperationalError,
        EngineError,
        *refused,
    )


def _print_lineage(found: PredictionLineage) -> None:
    said, run, promotion = found.prediction, found.run, found.promotion
    facts = Table(title=f"{said['entity_id']}, decided {said['decision_time'].astimezone(UTC):%Y-%m-%d %H:%M} UTC")
    facts.add_column("what")
    facts.add_column("where it comes from", overflow="fold")
    by = f"{promotion.actor}, {promotion.recorded_at:%Y-%m-%d %H:%M}: {promotion.reason}" if promotion else "no line"
    trained = json.loads(run.tags.get("data_versions", "{}"))
    for what, where in {
        "probability": f"{said['probability']:.9f}, expected cost {said['expected_cost']:,.2f}, rank {said['rank']}",
        "reasons": _causes(said["reason_codes"]),
        "model": f"{said['model_name']} version {said['model_version']}, {run.tags.get('candidate')}",
        "made champion by": by,
        "evidence": promotion.evidence_hash or "none" if promotion else "none",
        "MLflow run": f"{run.run_id}, as of {run.tags.get('training_date')}, Dagster {run.tags.get('dagster_run_id')}",
        "trained with code": run.tags.get("git_commit"),
        "trained on": ", ".join(f"{name} v{version}" for name, version in trained.items()),
        "scored with code": f"{said['git_commit']}, Dagster {said['dagster_run_id']}, {said['scored_at']:%F %H:%M}",
        "feature set": said["feature_set_hash"],
        "features": ", ".join(f"{name} v{version}" for name, version in said["data_versions"].items()),
        "made from": ", ".join(f"{name} v{version}" for name, version in found.curated_versions.items()),
        "made again, stored features": f"{found.probability_again:.9f}",
        "made again, from the events": _show(found.probability_anew, 9),
    }.items():
        facts.add_row(what, str(where))
    console.print(facts)
    values = Table("feature", "scored", "made again", title="features")
    for name, value in found.features.items():
        again = found.features_again.get(name) if found.features_again else None
        values.add_row(name, _show(value), _show(again), style="red" if name in found.differing else "")
    console.print(values)
    events = Table("known at, UTC", "event", "id", "topic", "partition", "offset", title="its events, known by then")
    for source in found.sources:
        events.add_row(
            f"{source.known_at.astimezone(UTC):%Y-%m-%d %H:%M:%S}", source.event, source.event_id, source.topic,
            _show(source.kafka_partition), _show(source.kafka_offset),
        )  # fmt: skip
    console.print(events)


def _causes(codes: dict[str, Any] | None) -> str:
    """Return the sum that the reasons are: base and contributions, in log-odds."""
    if codes is None:
        return "not within the team's capacity, so none were found"
    ordered = sorted(codes["contributions"].items(), key=lambda item: -item[1])
    shared = " ".join(f"{value:+.3f} {cause}" for cause, value in ordered)
    return f"log-odds {codes['log_odds']:.3f} = {codes['base']:.3f} base {shared}; {codes['action'] or 'no action'}"


def _simulated(settings: Settings, days: int, instructions: int, seed: int, stress: bool) -> Scenario:
    from ml_assets.demo import Scenario
    from ml_assets.simulation.market import MarketConfig, simulate

    usecase = _usecase(settings, "settlement_fails")
    config = MarketConfig(days=days, instructions_per_day=instructions, seed=seed, stress=stress)
    with console.status(f"simulating {days} business days of {instructions:,} instructions"):
        market = simulate(config)
        market.write_reference(settings.reference_uri)
        market.write_truth(_truth(settings))
    last = usecase.calendar.add(config.start, days - 1)
    return Scenario(usecase, market, config.start, last, last, (last,), truth=_truth(settings))


def _replayed(data: Path | None) -> Scenario:
    """Return the scenario of the SEC files: train on what was known by the end of 2020, test on the next quarter."""
    from ml_assets.demo import Scenario
    from ml_assets.simulation.sec_ftd import replay

    if data is None:
        raise ValueError("cns_fails needs the SEC's files: --data <folder of cnsfailsYYYYMM{a|b}.txt.xz>")
    replayed = replay(data)
    _say_what_is_missing(replayed)
    usecase = _usecase(Settings(), "cns_fails")
    return Scenario(
        usecase,
        replayed,
        first=date(2020, 6, 1),
        last=date(2021, 5, 31),
        training_date=date(2021, 4, 15),
        scored=(date(2021, 3, 31),),
        window={"train_cutoff": "2021-01-01", "test_first": "2021-01-04", "test_last": "2021-03-31"},
        later=(date(2021, 4, 1), date(2021, 5, 31)),
    )


def _say_what_is_missing(replayed: Any) -> None:
    for name, reason in replayed.refused.items():
        console.print(f"[yellow]refused {name}:[/] {reason}", highlight=False)
    if replayed.gaps:
        console.print(f"[yellow]no file for[/] {', '.join(replayed.gaps)}: these dates are unknown, not without fails")


def _produce(settings: Settings, source: Any) -> None:
    from rich.progress import Progress

    from ml_assets.embedded.environment import kafka_connection
    from ml_assets.landing.produce import ensure_topics, produce

    kafka = kafka_connection(settings)
    ensure_topics(kafka, source.topics)
    with Progress(console=console) as progress:
        task = progress.add_task("messages", total=source.message_count)
        sent = produce(kafka, source.messages(), progress=lambda steps: progress.advance(task, steps))
    console.print(f"{sent:,} messages are on the broker {kafka.bootstrap}; `ml-assets land --replay` lands them")


def _run(use_case: str, verb: Any, first: date, last: date) -> None:
    """Run a job for the dates from first to last, each chunk as one run on the Dagster instance."""
    from ml_assets.demo import CHUNK
    from ml_assets.local_runs import LocalRuns, local_instance, weekdays

    settings = Settings()
    usecase = _usecase(settings, use_case)
    days = weekdays(usecase, first, last)
    if not days:
        raise ValueError(
            f"{use_case} has no partition from {first} to {last}; it has the weekdays from {usecase.first_partition}"
        )
    with local_instance(settings) as instance:
        runs = LocalRuns(instance, usecase, _platform(settings))
        with console.status(f"{verb} {use_case} {days[0]} to {days[-1]}"):
            runs.run_in_chunks(verb, days, CHUNK)
    console.print(f"{verb} of {use_case} is done for {len(days)} dates, {days[0]} to {days[-1]}")


def _usecases(settings: Settings) -> tuple[UseCase, ...]:
    from ml_assets.usecases import discover

    return discover(settings.usecase_packages)


def _usecase(settings: Settings, name: str) -> UseCase:
    known = {usecase.name: usecase for usecase in _usecases(settings)}
    if name not in known:
        raise LookupError(f"there is no use case {name!r}; there are {', '.join(known)}")
    return known[name]


def _platform(settings: Settings) -> Platform:
    from ml_assets.resources import Platform

    return Platform(home=str(settings.home_path))


def _actor(settings: Settings) -> Actor:
    import getpass

    from ml_assets.database.promotions import Actor

    return Actor.person(settings.actor or getpass.getuser())


def _truth(settings: Settings) -> Path:
    return settings.home_path / "truth" / "settlement_fails.parquet"


def _stop_servers(settings: Settings, *, used_only: bool = False) -> None:
    """Stop the embedded servers of the home; if `used_only`, not those in whose place the settings name others."""
    from ml_assets.embedded.broker import stop_broker
    from ml_assets.embedded.postgres import stop_server

    if not (used_only and settings.kafka_bootstrap):
        stop_broker(settings.home_path)
    if not (used_only and settings.postgres_url.get_secret_value()):
        stop_server(settings.home_path)


def _show(value: float | str | None, digits: int = 4) -> str:
    if value is None:
        return "unknown"
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
