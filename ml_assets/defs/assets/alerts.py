"""Alerts as an asset, so that the UI shows how each rule stands, what is open, and whether anybody looks at all."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
from pydantic import Field

from ml_assets.database.reports import Given
from ml_assets.defs.common import retrying_outages_only, table
from ml_assets.defs.resources import Platform
from ml_assets.lifecycle.alert_round import Round, Telling, make_round
from ml_assets.lifecycle.alert_rules import all_rules
from ml_assets.lifecycle.alerts import NOW_ONLY, Ground, storage
from ml_assets.platform import Platform as Opened
from ml_assets.spec import UseCase

ALERTS = dg.AssetKey(["alerts", "states"])
JOB = "alerts"
# Rounds that are missing for so long show on the asset.
_MISSING = timedelta(minutes=30)
_RUNS_SINCE = timedelta(days=2)
_MOST_RUNS = 2_000
_SHOWN = 50


class AlertsConfig(dg.Config):
    """Which rules are evaluated."""

    all_rules: bool = Field(False, description="evaluate all rules, also those that are not due")


def build(usecases: Sequence[UseCase], upstream: Mapping[str, frozenset[str]]) -> Iterator[dg.AssetsDefinition]:
    """Yield the asset of the states of all rules; `upstream` has by asset all that it is made from."""
    followed = followed_by(usecases)

    @dg.asset(
        key=ALERTS,
        deps=[dg.AssetKey(name.split("/")) for name in followed],
        group_name="alerts",
        kinds={"postgres", "sql"},
        owners=["team:ml-platform"],
        freshness_policy=dg.FreshnessPolicy.time_window(fail_window=_MISSING),
        description=(
            "How each rule of alerts stands, and what is open. A round every few minutes evaluates the rules that are "
            "due (SQL files) and sends what is due. Not fresh: nobody looks."
        ),
    )
    @retrying_outages_only
    def states(context: dg.AssetExecutionContext, config: AlertsConfig, platform: Platform) -> dg.MaterializeResult:
        made = round_on(
            context.instance, platform.opened, usecases, upstream, all_rules=config.all_rules, own=context.run.run_id
        )
        return dg.MaterializeResult(metadata=metadata_of(made))

    yield states


def followed_by(usecases: Sequence[UseCase]) -> list[str]:
    """Return the assets that rules follow, as `<use case>/<asset>`."""
    return sorted({f"{rule.use_case}/{rule.follows}" for rule in all_rules(usecases) if rule.follows})


def round_on(
    instance: dg.DagsterInstance,
    platform: Opened,
    usecases: Sequence[UseCase],
    upstream: Mapping[str, frozenset[str]],
    *,
    all_rules: bool = False,
    own: str = "",
) -> Round:
    """Make a round with what a Dagster instance knows of runs and of assets; `own` is the run that makes it."""
    settings = platform.settings
    places = {"home": str(settings.home_path), "lake": settings.lake_uri, "reports": settings.report_uri}
    given = {"runs": _runs(instance, own), "storage": storage(places)}
    ground = Ground(platform.lake, platform.registry, platform.engine, usecases, given, settings.threads)
    telling = Telling(
        platform.alert_routing, platform.alert_secrets, upstream, settings.runbook_uri, settings.links.report
    )
    made = None if all_rules else _materialized(instance, followed_by(usecases))
    return make_round(ground, telling, materialized=made)


def upstream_of(assets: Iterable[dg.AssetsDefinition | dg.AssetSpec]) -> dict[str, frozenset[str]]:
    """Return by asset all assets that it is made from, as `<use case>/<asset>`."""
    specs = [spec for one in assets for spec in (one.specs if isinstance(one, dg.AssetsDefinition) else [one])]
    direct = {_name(spec.key): {_name(dep.asset_key) for dep in spec.deps} for spec in specs}

    def above(name: str, seen: set[str]) -> set[str]:
        for one in direct.get(name, set()) - seen:
            seen.add(one)
            above(one, seen)
        return seen

    return {name: frozenset(above(name, set())) for name in direct}


def _name(key: dg.AssetKey) -> str:
    return "/".join(key.path)


def _materialized(instance: dg.DagsterInstance, names: Sequence[str]) -> dict[str, datetime]:
    found = {}
    for name in names:
        event = instance.get_latest_materialization_event(dg.AssetKey(name.split("/")))
        if event is not None:
            found[name] = datetime.fromtimestamp(event.timestamp, UTC)
    return found


def _runs(instance: dg.DagsterInstance, own: str) -> Given:
    """Return the runs of the last days, but for this one."""
    records = instance.get_run_records(dg.RunsFilter(created_after=datetime.now(UTC) - _RUNS_SINCE), limit=_MOST_RUNS)
    rows = [
        {
            "run_id": record.dagster_run.run_id,
            "job": record.dagster_run.job_name,
            "use_case": record.dagster_run.tags.get("use_case"),
            "status": record.dagster_run.status.value,
            "queued_at": record.create_timestamp.replace(tzinfo=UTC),
            "started_at": _time(record.start_time),
            "ended_at": _time(record.end_time),
            "failure": record.dagster_run.tags.get("ml_assets/failure"),
        }
        for record in records
        if record.dagster_run.run_id != own
    ]
    return Given(NOW_ONLY["runs"], rows)


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def metadata_of(made: Round) -> dict[str, Any]:
    """Return what the UI shows of a round."""
    states = [
        {
            "rule": one.rule.full_name,
            "state": one.state,
            "severity": one.rule.severity,
            "found": one.last.found if one.last else 0,
            "seconds": one.last.seconds if one.last else 0.0,
            "evaluated, UTC": f"{one.last.evaluated_at:%Y-%m-%d %H:%M}" if one.last else "never",
            "why": one.last.why if one.last else "",
        }
        for one in made.states
    ]
    opened = [
        {"since, UTC": f"{one.at:%Y-%m-%d %H:%M}", "message": one.message, "rule": f"{one.use_case}/{one.rule}",
         "severity": one.severity, "key": one.key}
        for one in made.open
    ]  # fmt: skip
    sent = [{"sink": one.sink, "message": one.subject, "became": one.what, "why": one.why} for one in made.sent]
    return {
        "open alerts": len(made.open),
        "rules evaluated": len(made.evaluated),
        "rules firing": made.count("firing"),
        "rules in error": made.count("error"),
        "rules without data": made.count("no data"),
        "rules not run": made.count("not run"),
        "events given up": made.of_outbox("given up"),
        "events that wait": made.of_outbox("waiting"),
        "open": table(opened[:_SHOWN]),
        "states": table(states, 2),
        "messages": table(sent[:_SHOWN]),
        **({"another process is at it": "; ".join(made.busy)} if made.busy else {}),
    }
