"""The commands of `ml-assets alerts`: list, show, ack, silence, test, backtest, run."""

from __future__ import annotations

import logging
import signal
import threading
from collections import Counter
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ml_assets.cli.opened import actor_of, platform_of, read_settings, usecases_of
from ml_assets.errors import InputError, NotFoundError, StateError

if TYPE_CHECKING:
    from ml_assets.alerts.rule import Rule
    from ml_assets.database.alerts import EventRow
    from ml_assets.lifecycle.alerts import Ground
    from ml_assets.settings import Settings

RuleName = Annotated[str, typer.Argument(help="<use case>/<rule>; `ml-assets alerts list` has all")]
Why = Annotated[str, typer.Option(help="why, for the ledger")]
Key = Annotated[str, typer.Option(help="key of one alert, as `list` shows it; without one, all of the rule")]
_STYLES = {"firing": "red", "error": "red", "not run": "red", "pending": "yellow", "no data": "yellow"}
_MOST_DAYS = 400


def add_alerts_commands(app: typer.Typer, console: Console) -> None:
    """Add the commands to the command line."""
    alerts = typer.Typer(help="Alerts: how rules stand, what is open, and what people say of it.", no_args_is_help=True)
    app.add_typer(alerts, name="alerts")

    @alerts.command("list")
    def list_alerts() -> None:
        """Show the state of each rule, and the alerts that are open."""
        from ml_assets.database.alerts import acknowledged, last_heartbeat, open_alerts, outbox_counts, silences
        from ml_assets.lifecycle.alerts import states

        settings = read_settings()
        engine, now = platform_of(settings).engine, datetime.now(UTC)
        table = Table("rule", "state", "severity", "evaluated, UTC", "why")
        for one in states(engine, usecases_of(settings), now):
            at = _when(one.last.evaluated_at) if one.last else "never"
            state = Text(one.state, _STYLES.get(one.state, ""))
            table.add_row(one.rule.full_name, state, one.rule.severity, at, one.last.why if one.last else "")
        console.print(table)
        _print_open(console, open_alerts(engine), acknowledged(engine))
        for silence in silences(engine, now):
            what = f"{silence.use_case}/{silence.rule}" + (f", {silence.key}" if silence.key else "")
            console.print(f"silenced until {_when(silence.until)} UTC: {what}", highlight=False)
        for (sink, became), number in sorted(outbox_counts(engine).items()):
            if became != "sent":
                console.print(f"{sink}: {number:,} events {became}", style="red" if became == "given up" else "")
        beat = last_heartbeat(engine)
        console.print(f"a rule was evaluated last at {_when(beat)} UTC" if beat else _NEVER, highlight=False)

    @alerts.command()
    def show(rule: RuleName, rows: Annotated[int, typer.Option(min=1, help="lines of the ledger")] = 20) -> None:
        """Show a rule: what it means, its runbook, and the newest lines of its ledger."""
        from ml_assets.alerts.durations import in_words
        from ml_assets.database.alerts import ledger

        settings = read_settings()
        one = _rule(settings, rule)
        console.print(f"{one.title} ({one.severity}), {one.full_name}, of {one.owner}: {one.file}", highlight=False)
        console.print(one.description, highlight=False)
        when = f"every {in_words(one.every)}" if one.every else f"after {one.use_case}/{one.follows}"
        console.print(
            f"evaluated {when}; opens {_after(one.hold)}, closes {_after(one.keep)}, told again after "
            f"{in_words(one.repeat)}; what to do: {settings.runbook_uri}#{one.runbook}",
            highlight=False,
            soft_wrap=True,
        )
        table = Table("when, UTC", "what", "key", "message", "by or to", "why")
        for line in ledger(platform_of(settings).engine, one.use_case, one.name, limit=rows):
            table.add_row(
                _when(line.at), line.what, line.key, line.message, line.actor or line.sink or "", line.reason or ""
            )
        console.print(table if table.row_count else "its ledger has no line yet")

    @alerts.command()
    def ack(rule: RuleName, reason: Why, key: Key = "") -> None:
        """Say that somebody acts on what is open: it is not told again until it closes."""
        from ml_assets.database.alerts import acknowledged, open_alerts, say

        settings = read_settings()
        one, engine = _rule(settings, rule), platform_of(settings).engine
        opened = open_alerts(engine, one.use_case, one.name)
        found = [line for line in opened if not key or line.key == key]
        if not found:
            keys = ", ".join(line.key for line in opened)
            raise NotFoundError(
                f"no alert of {rule} is open" + (f" with the key {key!r}; open are: {keys}" if opened else "")
            )
        known = acknowledged(engine)
        if all(line.event_id in known for line in found):
            raise StateError(f"{rule}: {known[found[0].event_id or '']} has acknowledged it already")
        for line in found:
            if line.event_id not in known:
                say(
                    engine,
                    _said(one, "acknowledged", settings, reason, key=line.key, about=line.event_id, kind=line.kind),
                )
        console.print(f"{rule}: {len(found)} acknowledged; not told again until closed")

    @alerts.command()
    def silence(
        rule: RuleName,
        reason: Why,
        hours: Annotated[float, typer.Option(min=0, max=24 * 14, help="for how long; 0 ends a silence")],
        key: Key = "",
    ) -> None:
        """Tell nobody of a rule for some hours. The ledger has what happens; what is open then is told at the end."""
        from ml_assets.database.alerts import say

        settings = read_settings()
        one = _rule(settings, rule)
        until = datetime.now(UTC) + timedelta(hours=hours)
        say(platform_of(settings).engine, _said(one, "silenced", settings, reason, key=key, until=until))
        console.print(f"{rule}: silenced until {_when(until)} UTC" if hours else f"{rule}: no longer silenced")

    @alerts.command()
    def test(rule: RuleName) -> None:
        """Run a rule's cases, then the rule as of now. Nothing is written or sent."""
        from ml_assets.alerts.machine import Failed, NoData
        from ml_assets.lifecycle.alert_cases import cases_of, failures
        from ml_assets.lifecycle.alerts import result_of

        settings = read_settings()
        one, ground = _rule(settings, rule), _ground(settings)
        cases = cases_of(ground.usecases, one)
        if wrong := failures(ground.engine, one, cases):
            raise StateError("\n".join(wrong), where=one.file)
        console.print(f"{rule}: its {len(cases)} cases hold", highlight=False)
        if one.reads("runs"):
            console.print("it reads the runs of Dagster: `ml-assets alerts run` evaluates it", highlight=False)
            return
        result = result_of(ground, one, datetime.now(UTC))
        if isinstance(result, Failed):
            raise StateError(result.why)
        found = [] if isinstance(result, NoData) else result.found
        console.print(f"as of now: {'no data' if isinstance(result, NoData) else f'{len(found):,} rows'}")
        for row in found:
            console.print(f"  {row.message}", highlight=False)

    @alerts.command()
    def backtest(
        rule: RuleName,
        first: Annotated[datetime, typer.Option("--from", formats=["%Y-%m-%d"], help="first date")],
        last: Annotated[datetime, typer.Option("--to", formats=["%Y-%m-%d"], help="last date")],
        at: Annotated[str, typer.Option(help="time of each weekday, UTC")] = "09:00",
    ) -> None:
        """Count what a rule would have fired, evaluated as of each weekday between two dates. Nothing is written."""
        from ml_assets.alerts.machine import Failed, NoData
        from ml_assets.lifecycle.alerts import backtest as play

        settings = read_settings()
        one, ground = _rule(settings, rule), _ground(settings)
        made = play(ground, one, _times(first.date(), last.date(), at))
        table = Table("when, UTC", "key", "message", title=f"{rule}: what would have opened")
        for _, _, events in made:
            for event in events:
                if event.what == "opened":
                    table.add_row(_when(event.at), event.key, event.message)
        console.print(table)
        results = [result for _, result, _ in made]
        failed = [result.why for result in results if isinstance(result, Failed)]
        what = Counter(event.what for _, _, events in made for event in events)
        without = sum(isinstance(result, NoData) for result in results)
        console.print(
            f"{len(made)} evaluations: {what['opened']} alerts opened, {what['closed']} closed, {what['repeated']} "
            f"told again; {without} without data, {len(failed)} failed",
            highlight=False,
        )
        if failed:
            raise StateError(f"the rule cannot be evaluated: {failed[-1]}")

    @alerts.command()
    def run(
        every: Annotated[
            str, typer.Option(help="stay, and make a round of what is due every so long, as `5 minutes`")
        ] = "",
    ) -> None:
        """Make a round now, as a run on the Dagster instance: evaluate all rules, send what is due. Or stay for it."""
        if every:
            _stay(console, every)
            return
        from ml_assets.cli.local_runs import local_instance, run_alerts
        from ml_assets.defs.resources import Platform as Resource

        settings = read_settings()
        with local_instance(settings) as instance, console.status("alerts"):
            told = run_alerts(instance, usecases_of(settings), Resource(home=str(settings.home_path)))
        if busy := told.get("another process is at it"):
            raise StateError(str(busy))
        console.print(", ".join(f"{name}: {told[name]}" for name in _TOLD), highlight=False)
        if told["events given up"]:
            raise StateError("a sink did not take events", to_do="`ml-assets alerts list` says which sink")


def _stay(console: Console, said: str) -> None:
    """Make rounds until SIGTERM or Ctrl-C, with metrics and probes on a port."""
    from ml_assets.alerts.durations import duration, in_words
    from ml_assets.cli.local_runs import instance_here
    from ml_assets.definitions import build_definitions
    from ml_assets.defs.evaluator import Evaluator
    from ml_assets.probes import serve

    every = duration(said, where="--every")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    settings, stop = read_settings(), threading.Event()
    for ending in (signal.SIGTERM, signal.SIGINT):
        signal.signal(ending, lambda *_: stop.set())
    usecases = usecases_of(settings)
    with instance_here(settings) as instance:
        evaluator = Evaluator.of(instance, platform_of(settings), usecases, build_definitions(usecases))
        if settings.metrics_port:
            serve(evaluator.metrics.registry, evaluator, settings.metrics_port)
        console.print(f"a round of alerts every {in_words(every)}; Ctrl-C ends it")
        evaluator.run(every, stop)


_TOLD = ("rules evaluated", "open alerts", "rules in error", "events that wait", "events given up")
_NEVER = "no rule was ever evaluated: `ml-assets ui` runs the schedule, `ml-assets alerts run` a round"


def _rule(settings: Settings, name: str) -> Rule:
    from ml_assets.lifecycle.alert_rules import rule_of

    return rule_of(usecases_of(settings), name)


def _ground(settings: Settings) -> Ground:
    from ml_assets.lifecycle.alerts import Ground, storage

    platform = platform_of(settings)
    given = {"storage": storage({"home": str(settings.home_path), "lake": settings.lake_uri})}
    return Ground(platform.lake, platform.registry, platform.engine, usecases_of(settings), given, settings.threads)


def _said(rule: Rule, what: str, settings: Settings, reason: str, **more: Any) -> EventRow:
    from ml_assets.database.alerts import EventRow

    if not reason.strip():
        raise InputError("the reason is empty", to_do='--reason "..."')
    line: dict[str, Any] = {
        "use_case": rule.use_case, "rule": rule.name, "rule_hash": rule.fingerprint, "kind": "firing",
        "severity": rule.severity, "message": "", "at": datetime.now(UTC), "actor": actor_of(settings).name,
        "reason": reason.strip(),
    }  # fmt: skip
    return EventRow(what=what, **(line | more))


def _times(first: date, last: date, at: str) -> list[datetime]:
    try:
        of_day = time.fromisoformat(at)
    except ValueError:
        raise InputError(f"--at is {at!r}", to_do="write it as 09:00") from None
    days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
    if not 1 <= len(days) <= _MOST_DAYS:
        raise InputError(f"from {first} to {last} are {len(days)} days", to_do=f"give 1 to {_MOST_DAYS}")
    return [datetime.combine(day, of_day, tzinfo=UTC) for day in days if day.weekday() < 5]


def _print_open(console: Console, found: list[EventRow], known: dict[str, str]) -> None:
    if not found:
        console.print("no alert is open")
        return
    table = Table("since, UTC", "rule", "severity", "key", "message", "acknowledged by", title="open alerts")
    for line in found:
        table.add_row(
            _when(line.at), f"{line.use_case}/{line.rule}", line.severity, line.key, line.message,
            known.get(line.event_id or "", ""),
        )  # fmt: skip
    console.print(table)


def _after(length: timedelta) -> str:
    from ml_assets.alerts.durations import in_words

    return f"after {in_words(length)}" if length else "at once"


def _when(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M}"
