"""The rehearsal from an empty home to its page: servers, play, account, files."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
import pyarrow.dataset as ds

from ml_assets.code_version import code_version
from ml_assets.lake import features_table, predictions_table
from ml_assets.learning.scorer import Scorer
from ml_assets.lifecycle.reports import REHEARSAL
from ml_assets.local.embedded.environment import kafka_connection, stop_servers
from ml_assets.local.rehearsal.account import (
    NEVER,
    ORACLE,
    RULE,
    TEAM,
    Decisions,
    Goal,
    brakes,
    costs,
    false_alarms,
    flagged,
    goals,
    limits,
    recoveries,
)
from ml_assets.local.rehearsal.files import FilesPlan, Played, play_files, with_last_half_month_later
from ml_assets.local.rehearsal.files_page import files_page, files_plots, goals_of_gap, goals_of_months
from ml_assets.local.rehearsal.mornings import Say
from ml_assets.local.rehearsal.page import page, plots
from ml_assets.local.rehearsal.plan import Plan, home_of
from ml_assets.local.rehearsal.play import Year, play
from ml_assets.local.simulation.sec_ftd import Replay, replay
from ml_assets.local.simulation.truth import truth_table
from ml_assets.object_store import write_files
from ml_assets.platform import Platform, open_platform
from ml_assets.settings import Settings
from ml_assets.spec import UseCase

# Years without a publication, in the second part of playing files.
_YEARS = 2
_KEYS = ["entity_id", "decision_time"]


def rehearse(settings: Settings, plan: Plan, usecase: UseCase, out: Path, say: Say = lambda _: None) -> list[Goal]:
    """Play the year on servers of its own below the home, write the page and its plots, and return the goals.

    `out` is the page, a Markdown file; the plots go into a folder of its name beside it. A copy goes to the reports of
    the use case, where the asset `retraining_decision` links it.
    """
    reports = f"{settings.report_uri.rstrip('/')}/{usecase.name}/{Path(REHEARSAL).parent}"
    began, used = perf_counter(), process_time()
    with played(settings, plan, usecase, say) as (year, platform):
        took, cpu = perf_counter() - began, process_time() - used
        decisions = decisions_of(year, platform)
        found = costs(year.usecase, decisions, year.saved, year.acts)
        could_be = limits(year.usecase, decisions)
        reached = goals(
            found, flagged(plan, year.mornings), false_alarms(plan, year.mornings), recoveries(year, decisions)
        ) + brakes(plan, year.mornings)
        when = f"{datetime.now().astimezone():%Y-%m-%d}"
        measured = [f"{platform.code[:7]}, {when}", f"it took {_minutes(took, cpu)}", _by_stage(year.seconds)]
    files = {
        out.name: page(year, found, could_be, reached, measured, out.stem).encode(),
        **{f"{out.stem}/{name}.png": png for name, png in plots(year, decisions, found).items()},
    }
    write_files(str(out.parent), files)
    write_files(reports, {name.replace(out.stem, Path(REHEARSAL).stem, 1): file for name, file in files.items()})
    return reached


@contextmanager
def played(
    settings: Settings, plan: Plan, usecase: UseCase, say: Say = lambda _: None
) -> Iterator[tuple[Year, Platform]]:
    """Play the year on empty servers below the home, and yield it with the platform; the servers stop at the end."""
    with own_servers(settings, "year") as platform:
        yield play(plan, usecase, platform, kafka_connection(platform.settings), say), platform


def played_files(
    settings: Settings, plan: FilesPlan, files: Replay, usecase: UseCase, name: str, say: Say = lambda _: None
) -> Played:
    """Play the SEC's files on empty servers below the home, which stop at the end, and return what came of it."""
    with own_servers(settings, name) as platform:
        return play_files(plan, files, usecase, platform, kafka_connection(platform.settings), say)


def rehearse_files(
    settings: Settings, plan: FilesPlan, folder: Path, usecase: UseCase, out: Path, say: Say = lambda _: None
) -> list[Goal]:
    """Play the SEC's files, then those of the first year and one half-month two years later; write the page.

    Raises:
        InputError: the folder has no files, or too few for a first model.
    """
    began, used = perf_counter(), process_time()
    files = replay(folder)
    months = played_files(settings, plan, files, usecase, "months", say)
    with tempfile.TemporaryDirectory(prefix="ml_assets_") as later:
        folder = with_last_half_month_later(files, _YEARS, Path(later), usecase)
        # Few are published after the first model: the last one is to be learned from.
        silent = played_files(settings, replace(plan, retrain_every=1), replay(folder), usecase, "gap", say)
    reached = [*goals_of_months(months), *goals_of_gap(silent)]
    took, cpu = perf_counter() - began, process_time() - used
    measured = [
        f"{code_version()[:7]}, {datetime.now().astimezone():%Y-%m-%d}",
        f"both took {_minutes(took, cpu)}",
        f"all months, {_by_stage(months.seconds)}",
    ]
    text = files_page(months, silent, reached, measured, out.stem)
    plots = {f"{out.stem}/{name}.png": png for name, png in files_plots(months).items()}
    write_files(str(out.parent), {out.name: text.encode(), **plots})
    return reached


@contextmanager
def own_servers(settings: Settings, name: str) -> Iterator[Platform]:
    """Yield a platform of empty servers below the home; they stop at the end.

    Of two that a process has one after the other each needs a `name` of its own: MLflow makes its tables once for each
    address of a database, and the address is the folder.
    """
    own = Settings(home=home_of(settings.home_path) / name, threads=settings.threads)
    stop_servers(own)
    shutil.rmtree(own.home_path, ignore_errors=True)
    platform = open_platform(own)
    try:
        yield platform
    finally:
        platform.close()
        stop_servers(own)


def decisions_of(year: Year, platform: Platform) -> Decisions:
    """Return all decisions of the year whose outcome date is over, with the probabilities of each list."""
    usecase, first, last = year.usecase, year.mornings[0].date, year.mornings[-2].date
    day = ds.field("outcome_date")
    rows = platform.lake.read(features_table(usecase), where=(day >= first) & (day <= last))
    mine = platform.lake.read(
        predictions_table(usecase), columns=[*_KEYS, "probability"], where=(day >= first) & (day <= last)
    ).rename_columns([*_KEYS, "mine"])
    truth = truth_table(year.market.world, year.market.instructions)
    truth = truth.select(["entity_id", "slot", "probability", "outcome"])
    rows = rows.join(truth, keys=["entity_id", "slot"], join_type="inner").join(mine, keys=_KEYS, join_type="inner")
    rows = rows.sort_by([("decision_time", "ascending"), ("entity_id", "ascending")])
    models = {RULE: usecase.rule.name, NEVER: next(one.name for one in usecase.candidates if not one.is_rule)}
    probabilities = {
        name: np.asarray(
            Scorer.from_files(platform.registry.download_model(year.first_models[candidate])).score(rows),
            dtype=np.float64,
        )
        for name, candidate in models.items()
    }
    probabilities |= {TEAM: rows["mine"].to_numpy(), ORACLE: rows["probability"].to_numpy()}
    return Decisions(
        rows.select([*_KEYS, "slot", "outcome_date"]),
        rows["outcome"].to_numpy().astype(np.bool_),
        rows["cost_if_fail"].to_numpy(),
        probabilities,
    )


def _minutes(took: float, cpu: float) -> str:
    loads = ", ".join(f"{load:.1f}" for load in os.getloadavg())
    return f"{took / 60:.0f} minutes, {cpu / 60:.0f} of them of this process's processor; load average {loads}"


def _by_stage(seconds: Mapping[str, float]) -> str:
    slowest = sorted(seconds.items(), key=lambda one: -one[1])
    return "by stage, seconds: " + ", ".join(f"{stage} {spent:,.0f}" for stage, spent in slowest)
