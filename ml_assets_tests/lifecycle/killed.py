"""Act on a champion in a process that kills itself at a step."""

import multiprocessing
import os
import signal
import sys
from typing import Any

from ml_assets.database.promotions import Actor
from ml_assets.learning.gate import Verdict
from ml_assets.lifecycle import promotion
from ml_assets.registry import ModelRegistry
from ml_assets_tests import late_payments


def exit_code_of(told: dict[str, Any]) -> int | None:
    """Do what is told in a process of its own. The processes come from one that has imported everything once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "mlflow.store.tracking.sqlalchemy_store"])
    process = context.Process(target=act_and_die, args=(told,))
    process.start()
    process.join()
    return process.exitcode


def act_and_die(told: dict[str, Any]) -> None:
    """Act, and die at the step."""
    sys.path.insert(0, told["package_root"])
    usecase = late_payments.usecase_of(told["package"])
    object.__setattr__(usecase, "name", told["usecase"])
    object.__setattr__(usecase, "tier", told["tier"])
    promotion.judge_now = lambda *_: Verdict(passed=True, conditions=())  # the gate has tests of its own
    registry = ModelRegistry(told["mlflow"], told["artifacts"])

    def at_step(step: str) -> None:
        if step == told["step"]:
            os.kill(os.getpid(), signal.SIGKILL)

    act = getattr(promotion, told["act"])
    act(registry, told["url"], usecase, Actor(*told["actor"]), **told["said"], at_step=at_step)
