"""Send alerts in a process that kills itself at a step; the sink is a real server of the test."""

import multiprocessing
import os
import random
import signal
from datetime import UTC, datetime
from typing import Any

from ml_assets.alerts.routes import read_routing
from ml_assets.database.connect import connect
from ml_assets.lifecycle.alert_sending import Office, send_alerts


def exit_code_of(told: dict[str, Any]) -> int | None:
    """Do what is told in a process of its own. The processes come from one that has imported everything once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "ml_assets.lifecycle.alert_sending"])
    process = context.Process(target=send_and_die, args=(told,))
    process.start()
    process.join()
    return process.exitcode


def send_and_die(told: dict[str, Any]) -> None:
    """Send, and die at one of the steps, which the seed draws."""
    steps = iter(range(10_000))
    deadly = random.Random(told["seed"]).randrange(told["steps"])

    def at_step(step: str) -> None:
        if next(steps) == deadly:
            os.kill(os.getpid(), signal.SIGKILL)

    office = Office(read_routing(told["routes"], where="routes"), {}, {}, {}, "runbooks.md")
    send_alerts(connect(told["url"]), office, lambda: datetime.now(UTC), at_step=at_step)
