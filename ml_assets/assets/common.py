"""What the assets of all stages share: keys, partitions, provenance, and how a report is shown."""

import base64
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from typing import Any, ParamSpec, TypeVar

import dagster as dg
import pandas as pd
from dagster._core.errors import DagsterExecutionInterruptedError

from ml_assets.lifecycle.training import RunOrigin
from ml_assets.resources import Platform
from ml_assets.spec import UseCase

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

    What is wrong with data or code would be as wrong the next time: it fails at once, and its message is what the
    Dagster UI shows first. A run that somebody cancels ends, and so does one whose pod must go, for which Dagster
    launches another: Dagster's retry policy would start the step again, in a process that is about to be killed.
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
    """Tell whether the run of this step is being cancelled. It is asked only when something has gone wrong."""
    context = dg.AssetExecutionContext.get()
    run = context.instance.get_run_by_id(context.run.run_id)
    return run is not None and run.status is dg.DagsterRunStatus.CANCELING


def partitions(usecase: UseCase) -> dg.TimeWindowPartitionsDefinition:
    """Return a partition a weekday from the use case's first, today included."""
    return dg.TimeWindowPartitionsDefinition(
        start=usecase.first_partition.isoformat(), fmt="%Y-%m-%d", cron_schedule="0 0 * * 1-5", end_offset=1
    )


def key(usecase: UseCase, *names: str) -> dg.AssetKey:
    """Return the asset key `<use case>/<names>`."""
    return dg.AssetKey([usecase.name, *names])


def common(usecase: UseCase, stage: str) -> dict[str, Any]:
    """Return the arguments that every asset of a stage has."""
    return {"group_name": stage, "owners": [f"team:{usecase.owner}"], "tags": {"use_case": usecase.name}}


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


def origin(context: dg.AssetExecutionContext, platform: Platform) -> RunOrigin:
    """Return which code, in which run, makes this."""
    return RunOrigin(code_version=platform.code, dagster_run_id=context.run.run_id)


def table(rows: pd.DataFrame | Sequence[Mapping[str, Any]], digits: int = 4) -> dg.MetadataValue:
    """Return rows as a Markdown table for the Dagster UI."""
    frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))
    lines = ["| " + " | ".join(map(str, frame.columns)) + " |", "|" + " --- |" * len(frame.columns)]
    for row in frame.itertuples(index=False):
        lines.append("| " + " | ".join(_show(value, digits) for value in row) + " |")
    return dg.MetadataValue.md("\n".join(lines) if len(frame) else "*none*")


def counts(by: Mapping[Any, int], what: str) -> dg.MetadataValue:
    """Return counts as a Markdown table."""
    return table([{what: name, "rows": number} for name, number in by.items()])


def picture(png: bytes, name: str) -> dg.MetadataValue:
    """Return a picture that the Dagster UI shows: it has no plot type, so the bytes travel in the Markdown."""
    return dg.MetadataValue.md(f"![{name}](data:image/png;base64,{base64.b64encode(png).decode()})")


def numbers(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics that are defined; the UI plots each over time."""
    return {name: float(value) for name, value in metrics.items() if value == value}


def _show(value: Any, digits: int) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        if value != value:
            return ""
        tiny = 0 < abs(value) < 10**-digits
        return f"{value:.1e}" if tiny else f"{value:,.0f}" if value.is_integer() else f"{value:,.{digits}f}"
    if isinstance(value, int):
        return f"{value:,}"
    return "" if value is None else str(value).replace("|", "\\|")
