"""`ml-assets model-report`: what the model pipeline of a pull request runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ml_assets.cli.opened import read_settings
from ml_assets.errors import NotFoundError, StateError

if TYPE_CHECKING:
    from ml_assets.governance.model_report import Trained
    from ml_assets.spec import UseCase

_ROOT = Path(__file__).parents[2]
# Instructions a day: enough for the gate's floors, a quarter of the demo's.
_INSTRUCTIONS = 1000


class UntriedError(StateError):
    """A use case that was touched cannot be trained here."""


def add_model_report(app: typer.Typer, console: Console) -> None:
    """Add the command to the command line."""

    @app.command("model-report")
    def report(
        against: Annotated[str, typer.Option(help="the commit to compare with")] = "origin/main",
        use_case: Annotated[list[str] | None, typer.Option(help="these, not those that are touched")] = None,
        data: Annotated[Path | None, typer.Option(help="folder of the SEC files, for cns_fails")] = None,
        out: Annotated[Path, typer.Option(help="the report, as Markdown")] = Path("dist/model-report.md"),
    ) -> None:
        """Train the use cases that a change touches on a sample, before and after it, and write the comparison.

        Both states of the code run the whole lifecycle, on servers of their own. The former is checked out from git.
        """
        from ml_assets.code_version import code_version
        from ml_assets.governance.model_report import model_report, touched
        from ml_assets.usecases import discover

        known = {usecase.name: usecase for usecase in discover(read_settings().usecase_packages)}
        base = _git("merge-base", against, "HEAD")
        asked = use_case or touched(_git("diff", "--name-only", base).splitlines(), list(known))
        if unknown := sorted(set(asked) - known.keys()):
            raise NotFoundError(f"there is no use case {unknown[0]!r}; there are {', '.join(known)}")
        parts = [] if asked else [f"No model is touched by what changed since {base[:9]}.\n"]
        untried = []
        with _checkout(base) as former:
            for name in asked:
                sample, options = _sample(name, data)
                if not sample:
                    untried.append(name)
                    parts.append(f"## {known[name].title}\n\n**Not trained**: {options[0]}\n")
                    continue
                console.print(f"{name}: this change")
                after = _train(known[name], _ROOT, options, code_version())
                before = None
                if (former / "ml_assets" / "usecases" / name).is_dir():
                    console.print(f"{name}: {base[:9]}")
                    before = _train(known[name], former, options, base)
                parts.append(model_report(known[name], before, after, sample=sample))
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text("\n".join(parts), encoding="utf-8")
        console.print(f"{out}: {', '.join(asked) or 'no use case is touched'}")
        if untried:
            raise UntriedError(f"{', '.join(untried)}: touched and not trained; {out} says why")


def _sample(name: str, data: Path | None) -> tuple[str, list[str]]:
    """Return what a use case is trained on, and the options of `demo` for it; or "" and why it cannot be."""
    if name == "settlement_fails":
        return f"60 simulated days of {_INSTRUCTIONS:,} instructions", ["--instructions", str(_INSTRUCTIONS)]
    if name == "cns_fails":
        if data is None:
            return "", ["it is trained on the SEC's files: `make model-report DATA=<folder>`"]
        return f"the SEC's files in {data.name}", ["--use-case", name, "--data", str(data.resolve())]
    return "", ["there is no demo of it, so there is no sample"]


def _train(usecase: UseCase, checkout: Path, options: list[str], commit: str) -> Trained:
    """Run the lifecycle with the code of a checkout in a home of its own, and return the challenger it registered.

    Raises:
        UntriedError: the lifecycle failed; it has said why.
    """
    home = Path(tempfile.mkdtemp(prefix="ml_assets_report_"))
    try:
        command = [sys.executable, "-m", "ml_assets.cli.main", "demo", *options]
        if subprocess.run(command, cwd=checkout, env=_environment(checkout, home), check=False).returncode:  # noqa: S603
            raise UntriedError(f"{usecase.name}: the lifecycle of {commit[:9]} failed; what it said is above")
        return _challenger(usecase, home, commit)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _environment(checkout: Path, home: Path) -> Mapping[str, str]:
    """Return the environment of a run that touches nothing but its home: settings of real servers are left out."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ML_ASSETS_", "DAGSTER_"))}
    return {**kept, "PYTHONPATH": str(checkout), "ML_ASSETS_HOME": str(home)}


def _challenger(usecase: UseCase, home: Path, commit: str) -> Trained:
    from ml_assets.governance.model_report import Trained
    from ml_assets.learning.gate import Verdict
    from ml_assets.learning.scorer import Scorer
    from ml_assets.learning.window import Window
    from ml_assets.lifecycle.evaluation import VERDICT
    from ml_assets.lifecycle.training import read_training_set
    from ml_assets.local.embedded.postgres import stop_server
    from ml_assets.platform import open_platform
    from ml_assets.registry import CHALLENGER
    from ml_assets.settings import Settings

    platform = open_platform(Settings(home=home))
    try:
        registry = platform.registry
        version = registry.resolve(usecase.name, CHALLENGER)
        if version is None:
            raise UntriedError(f"{usecase.name}: {commit[:9]} registered no challenger")
        tags = registry.run(version.run_id).tags
        training_date = date.fromisoformat(tags["training_date"])
        test = read_training_set(platform.lake, usecase, training_date, parts=["test"])
        return Trained(
            commit,
            tags["candidate"],
            Window.of(test),
            Scorer.from_files(registry.download_model(version.run_id)).score(test),
            Verdict.from_json(registry.read_evidence(version.run_id, VERDICT)),
        )
    finally:
        platform.close()
        stop_server(platform.settings.home_path)


@contextmanager
def _checkout(commit: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ml_assets_before_") as folder:
        place = Path(folder) / "code"
        _git("worktree", "add", "--detach", str(place), commit)
        try:
            yield place
        finally:
            _git("worktree", "remove", "--force", str(place))


def _git(*arguments: str) -> str:
    """Return what git prints.

    Raises:
        LookupError: git says no.
    """
    done = subprocess.run(["git", "-C", str(_ROOT), *arguments], capture_output=True, text=True, check=False)  # noqa: S603, S607
    if done.returncode:
        raise NotFoundError(f"git {arguments[0]}: {done.stderr.strip()}")
    return done.stdout.strip()
