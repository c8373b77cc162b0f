"""What all of Dagster's rooms share: keys, partitions, provenance, and how a report is shown.

It stands below `assets/`, `checks/`, `jobs/`, `schedules/` and `sensors/`, and imports none of them.
"""

import base64
import functools
import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from typing import Any, ParamSpec, TypeVar

import dagster as dg
import pandas as pd
from dagster._core.errors import DagsterExecutionInterruptedError

from ml_assets import markdown
from ml_assets.defs.look_back import WholeMapping, WindowMapping
from ml_assets.defs.resources import Platform
from ml_assets.lifecycle.daily import CLOCKS_AHEAD
from ml_assets.lifecycle.training import RunOrigin
from ml_assets.settings import Settings
from ml_assets.spec import EventSpec, UseCase

P = ParamSpec("P")
R = TypeVar("R")

# For a store or a server that does not answer; see `retrying_outages_only`.
RETRY = dg.RetryPolicy(max_retries=2, delay=5, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)

# From the last decision time of a day until its decisions must be there.
_GRACE = timedelta(hours=2)


class StoppedError(dg.DagsterError, DagsterExecutionInterruptedError):
    """The process was told to end. Dagster's retry policy leaves its own errors alone, and only those."""


def retrying_outages_only(compute: Callable[P, R]) -> Callable[P, R]:
    """Return the compute function of an asset, in which only an outage is worth a retry.

    An error in data or code would come again the next time: it fails at once, and its message is what the Dagster UI
    shows first. A run that somebody cancels ends, and so does a run whose pod must go, for which Dagster launches
    another run: Dagster's retry policy would start the step again, in a process that is about to be killed.
    """

    if inspect.isgeneratorfunction(compute):

        @functools.wraps(compute)
        def yielding(*args: P.args, **kwargs: P.kwargs) -> Any:
            with _outages_only():
                yield from compute(*args, **kwargs)

        return yielding

    @functools.wraps(compute)
    def returning(*args: P.args, **kwargs: P.kwargs) -> R:
        with _outages_only():
            return compute(*args, **kwargs)

    return returning


@contextmanager
def _outages_only() -> Iterator[None]:
    try:
        yield
    except BaseException as error:  # an interruption is no Exception, and Dagster's retry policy would retry it too
        if _is_being_cancelled():
            raise dg.Failure("the run was cancelled", allow_retries=False) from error
        if _was_told_to_end(error):
            raise StoppedError("the process was told to end") from error
        if isinstance(error, ValueError | TypeError | LookupError | FileNotFoundError):
            raise dg.Failure(f"{type(error).__name__}: {error}", allow_retries=False) from error
        raise


def _was_told_to_end(error: BaseException) -> bool:
    interrupted = isinstance(error, DagsterExecutionInterruptedError | KeyboardInterrupt)
    return interrupted or "Query interrupted" in str(error)  # what DuckDB makes of a signal


def _is_being_cancelled() -> bool:
    """Return whether the run of this step is being cancelled. This is called only after an error."""
    context = dg.AssetExecutionContext.get()
    run = context.instance.get_run_by_id(context.run.run_id)
    return run is not None and run.status is dg.DagsterRunStatus.CANCELING


def partitions(usecase: UseCase) -> dg.TimeWindowPartitionsDefinition:
    """Return the partitions: one per weekday from the use case's first date, today included."""
    return dg.TimeWindowPartitionsDefinition(
        start=usecase.first_partition.isoformat(), fmt="%Y-%m-%d", cron_schedule="0 0 * * 1-5", end_offset=1
    )


def key(usecase: UseCase, *names: str) -> dg.AssetKey:
    """Return the asset key `<use case>/<names>`."""
    return dg.AssetKey([usecase.name, *names])


def landing_key(event: EventSpec) -> dg.AssetKey:
    """Return the key of the landing table of an event's topic."""
    return dg.AssetKey(["landing", event.topic])


def common(usecase: UseCase, stage: str) -> dict[str, Any]:
    """Return the arguments that every asset of a stage has."""
    return {"group_name": stage, "owners": [f"team:{usecase.owner}"], "tags": {"use_case": usecase.name}}


def side_by_side(asset_key: dg.AssetKey) -> bool:
    """Return whether runs of a backfill may make dates of an asset beside each other.

    What such an asset looks back on is the partition mapping of its dependency (`seen_from`, `all_of`): by that a
    backfill keeps its order.
    """
    return asset_key.path[1:2] in (["curated"], ["features"], ["labels"])


def by_date(usecase: UseCase, stage: str, *, several_runs: bool = False) -> dict[str, Any]:
    """Return the arguments of an asset that is made date by date: one run makes all dates that it is asked for.

    A backfill is one run, or `several_runs` of `backfill_dates` each: so are those that are made `side_by_side`.
    """
    per_run = Settings().backfill_dates
    return {
        "partitions_def": partitions(usecase),
        "backfill_policy": dg.BackfillPolicy.multi_run(per_run) if several_runs else dg.BackfillPolicy.single_run(),
        "retry_policy": RETRY,
        **common(usecase, stage),
    }


def seen_from(usecase: UseCase, event: EventSpec) -> dg.AssetDep:
    """Return the dependency on an event's curated dates that the decisions of a date can see."""
    weeks, days = divmod(usecase.look_back(event).days, 7)
    window = WindowMapping(
        start_offset=-(5 * weeks + min(days, 5) + 1),
        end_offset=CLOCKS_AHEAD.days,
        allow_nonexistent_upstream_partitions=True,
    )
    return dg.AssetDep(key(usecase, "curated", event.name), partition_mapping=window)


def all_of(asset_key: dg.AssetKey) -> dg.AssetDep:
    """Return the dependency on all dates of an asset: how far back is in the data, and no window holds it."""
    return dg.AssetDep(asset_key, partition_mapping=WholeMapping())


def lake_pool(usecase: UseCase) -> str:
    """Return the pool of the assets that change with what has landed: their runs go one after the other.

    Features must not overtake the curated events that they look back on, whoever starts the run: a sensor, or a person
    who selects assets. The runs of a backfill have their own order and go side by side (`jobs/queue.py`).
    """
    return f"{usecase.name}_lake"


def when_updated(label: str) -> dg.AutomationCondition[Any]:
    """Return the condition that an asset is made again whenever one of those that it depends on is, and all are."""
    ready = (
        dg.AutomationCondition.any_deps_updated().since_last_handled()
        & ~dg.AutomationCondition.any_deps_missing()
        & ~dg.AutomationCondition.any_deps_in_progress()
        & ~dg.AutomationCondition.in_progress()
    )
    return ready.with_label(label)


def freshness(usecase: UseCase) -> dg.FreshnessPolicy:
    """Return the policy that each weekday has its decisions within two hours of the last decision time."""
    last = max(slot.at for slot in usecase.slots)
    deadline = (datetime.combine(date.min, last) + _GRACE).time()
    return dg.FreshnessPolicy.cron(
        deadline_cron=f"{deadline.minute} {deadline.hour} * * 1-5", lower_bound_delta=_GRACE, timezone="UTC"
    )


def dates_of(context: dg.AssetExecutionContext) -> list[date]:
    """Return the dates of the partitions that this step is to make."""
    return [date.fromisoformat(partition) for partition in context.partition_keys]


def origin(context: dg.AssetExecutionContext, platform: Platform, usecase: UseCase) -> RunOrigin:
    """Return the code and the run that make this, and the addresses of asset and run."""
    links = platform.settings.links
    partition = context.partition_keys[-1] if context.has_partition_key or context.has_partition_key_range else ""
    return RunOrigin(
        code_version=platform.code_with(usecase),
        dagster_run_id=context.run.run_id,
        links={
            "Dagster asset": links.asset(context.asset_key.path, partition),
            "Dagster run": links.dagster_run(context.run.run_id),
        },
    )


def run_link(platform: Platform, usecase: UseCase, run_id: str) -> dg.MetadataValue:
    """Return the MLflow run as a link; its id if there is no address of the UI."""
    url = platform.settings.links.mlflow_run(platform.registry.experiment_id(usecase.name), run_id)
    return dg.MetadataValue.url(url) if url else dg.MetadataValue.text(run_id)


def version_link(platform: Platform, usecase: UseCase, version: int) -> dict[str, dg.MetadataValue]:
    """Return the link to a registered version, if there is an address of the UI."""
    url = platform.settings.links.model_version(usecase.name, version)
    return {"model": dg.MetadataValue.url(url)} if url else {}


def champion_metadata(platform: Platform, usecase: UseCase) -> dict[str, Any]:
    """Return who is champion, since when, by whom and why, and how good it was on its unseen window."""
    from ml_assets.lifecycle.standing import champion_facts

    facts = champion_facts(platform.registry, platform.engine, usecase)
    if facts is None:
        return {"champion": "none yet"}
    line = facts.line
    return {
        "champion": f"version {line.to_version}, {facts.candidate}, trained as of {facts.training_date}",
        "champion_version": line.to_version,
        "since": dg.MetadataValue.timestamp(line.recorded_at),
        "by": line.actor,
        "why": line.reason,
        **version_link(platform, usecase, line.to_version),
        **({"mlflow_run": run_link(platform, usecase, facts.run_id)} if facts.run_id else {}),
        **numbers(facts.metrics),
    }


def table(rows: pd.DataFrame | Sequence[Mapping[str, Any]], digits: int = 4) -> dg.MetadataValue:
    """Return rows as a Markdown table for the Dagster UI."""
    frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))
    if not len(frame):
        return dg.MetadataValue.md("*none*")
    cells = frame.itertuples(index=False, name=None)
    return dg.MetadataValue.md(markdown.table(list(frame.columns), cells, lambda value: _show(value, digits)))


def counts(by: Mapping[Any, int], what: str) -> dg.MetadataValue:
    """Return counts as a Markdown table."""
    return table([{what: name, "rows": number} for name, number in by.items()])


def picture(png: bytes, name: str) -> dg.MetadataValue:
    """Return a picture that the Dagster UI shows: it has no plot type, so the bytes travel in the Markdown."""
    return dg.MetadataValue.md(f"![{name}](data:image/png;base64,{base64.b64encode(png).decode()})")


def numbers(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics that are defined; the UI plots each over time."""
    return {name: rounded(value) for name, value in metrics.items() if value == value}


def rounded(value: float) -> float:
    """Return the number as people read it: two decimals or four digits, and never more than five decimals.

    The exact metrics of a model are on its MLflow run.
    """
    value = float(value)
    return (
        round(value, min(5, max(2, 3 - math.floor(math.log10(abs(value))))))
        if value and math.isfinite(value)
        else value
    )


def between(low: float | None, high: float | None, digits: int) -> str:
    """Return a range as people read it, as 0.24 to 0.36; either end may be missing."""
    first, last = (_show(None if end is None else float(end), digits) for end in (low, high))
    return f"{first} to {last}" if first and last else f"up to {last}" if last else f"from {first}" if first else ""


def _show(value: Any, digits: int) -> str | None:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        if value != value:
            return ""
        if value.is_integer():
            return f"{value:,.0f}"
        # What is tiny keeps two digits, as 0.0015; an exponent only where there would be more than five decimals.
        tiny = 10**-digits > abs(value)
        return f"{value:.1e}" if abs(value) < 1e-4 else f"{value:.2g}" if tiny else f"{value:,.{digits}f}"
    if isinstance(value, int):
        return f"{value:,}"
    return "" if value is None else None
