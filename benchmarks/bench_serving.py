"""`make bench-serving`: how fast the scoring service answers, how much memory it takes, how fresh its scores are.

Everything in one run, in turns, generator and server on a core each: `ml-assets serve` as it is; `mlflow models serve`
and BentoML on the same ONNX model, which are given ready features; and the bare ASGI server answering a constant, which
is what no service in Python can pass. BentoML gets an environment of its own below this one, which is made once. Writes
docs/benchmarks-serving.md.
"""

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from http.client import HTTPConnection
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.bench_report import DOCS, page
from benchmarks.http_load import Load, load, post
from benchmarks.where_time_goes import KNOWN_ENTITY, WHAT_IF, Part, profiled, shares
from ml_assets.database.migrate import migrate
from ml_assets.database.promotions import Actor, ModelIdentity, declare_tiers, record, writing
from ml_assets.lake import Lake, curated_table, reference_table
from ml_assets.landing.produce import ensure_topics, produce
from ml_assets.learning.fit import fit_candidate
from ml_assets.learning.frames import model_arrays
from ml_assets.learning.golden import golden_sample
from ml_assets.learning.scorer import MODEL_FILE, Scorer
from ml_assets.learning.training_set import part_of
from ml_assets.local.embedded.environment import database_url, kafka_connection, stop_servers
from ml_assets.local.simulation.market import MarketConfig, simulate
from ml_assets.registry.integrity import file_hashes, model_hash
from ml_assets.serving.history import LiveHistory
from ml_assets.serving.table import make_table
from ml_assets.settings import Settings
from ml_assets.spec import SplitSpec
from ml_assets_tests.landing.messages import Message
from ml_assets_tests.usecases.settlement import USE_CASE, curated_market, references, training_set_of

REPORT = DOCS / "benchmarks-serving.md"
NAME = USE_CASE.name
SCORE = f"/v1/{NAME}/score"
CONNECTIONS = 16
# The demo's market: 4,000 instructions a day; a little more makes 10,000 open decisions.
PER_DAY, DAYS = 5_100, 10
SERVER_CORE, OTHER_CORE = {0}, {1}
BENTOML, PY_SPY = "bentoml==1.4.40", "py-spy==0.4.3"


def main() -> None:
    """Measure and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="rounds, in each of which all sides take a turn")
    parser.add_argument("--seconds", type=float, default=5.0, help="seconds of a turn")
    parser.add_argument("--messages", type=int, default=12, help="messages by which freshness is measured")
    parser.add_argument("--times", type=int, default=10, help="times the volume at which it is measured again; 0: not")
    asked = parser.parse_args()
    with staged(PER_DAY) as (settings, rows, template):
        turns, more, fresh, where = measure(settings, rows, template, asked.rounds, asked.seconds, asked.messages)
    at_more = None
    if asked.times:
        with staged(PER_DAY * asked.times) as (settings, many, _):
            open_broker(settings)
            with service(settings) as (port, _):
                at_more = AtMore(asked.times, many.num_rows, freshness(settings, port, many, asked.messages))
    lines = [*report(turns, more, fresh, at_more), *where]
    about = [
        "Written by `make bench-serving`. Speeds depend on the machine; read the ratios, whose sides are measured in",
        "turns: the server on one core, the generator of load (raw sockets) on the other.",
    ]
    facts = [
        f"{rows.num_rows:,} open decisions of settlement_fails, {PER_DAY:,} instructions a day; LightGBM as ONNX",
        f"median of {asked.rounds} rounds of {asked.seconds:g} s",
    ]
    REPORT.write_text(page("Benchmarks of the scoring service", about, facts, lines), encoding="utf-8")
    print(REPORT.read_text(encoding="utf-8"))  # noqa: T201 - this is what it is for


@dataclass(frozen=True)
class AtMore:
    """Freshness, in seconds of each message, at so many times the volume."""

    times: int
    decisions: int
    fresh: Sequence[float]


@contextmanager
def staged(per_day: int) -> Iterator[tuple[Settings, pa.Table, dict[str, Any]]]:
    """Give a stage with so many instructions a day, as `stage`; its servers stop with the block."""
    with tempfile.TemporaryDirectory(prefix="ml_assets_bench_") as folder:
        settings = Settings(home=Path(folder))
        try:
            yield settings, *stage(settings, per_day)
        finally:
            stop_servers(settings)


def open_broker(settings: Settings) -> None:
    """Start the broker of a stage, on the generator's core, with its topics."""
    kafka = kafka_connection(settings)
    broker = psutil.Process(msgspec.json.decode((settings.home_path / "broker.json").read_bytes())["pid"])
    broker.cpu_affinity(list(OTHER_CORE))
    ensure_topics(kafka, [event.topic for event in USE_CASE.events])


def stage(settings: Settings, per_day: int) -> tuple[pa.Table, dict[str, Any]]:
    """Fill a lake, make a champion; return the open decisions and the fields of one of the instructions."""
    home, small = settings.home_path, simulate(MarketConfig(days=10, instructions_per_day=300, dirty=0))
    usecase = replace(USE_CASE, split=SplitSpec(train_days=4, calibration_days=2, test_days=2))
    training = training_set_of(usecase, small, curated_market(small), references(small, home / "small"))
    boosted = next(candidate for candidate in usecase.candidates if candidate.name == "lightgbm")
    fitted, model = fit_candidate(usecase, boosted, training), home / "models" / "run1"
    fitted.scorer.save(model)
    (home / "golden").mkdir()
    (home / "golden" / "run1.json").write_text(golden_sample(fitted, part_of(training, "test")), encoding="utf-8")
    url = database_url(settings)
    migrate(url)
    declare_tiers(url, {NAME: "low"})
    identity = ModelIdentity(1, "run1", model_hash(file_hashes(model)), "e" * 64)
    for action in ("registered", "promoted"):
        with writing(url, NAME) as ledger:
            record(ledger, NAME, action, model=identity, actor=Actor.run("bench"), reason="bench")

    last = last_business_day(datetime.now(UTC).date())
    start = USE_CASE.calendar.add(last, 1 - DAYS)
    market = simulate(MarketConfig(start=start, days=DAYS, instructions_per_day=per_day, dirty=0))
    events, reference_data = curated_market(market), references(market, home / "reference")
    lake = Lake(str(home / "lake"))
    for event in USE_CASE.events:
        rows = events[event.name]
        lake.replace(curated_table(USE_CASE, event), rows, "business_date", rows["business_date"].unique().to_pylist())
    for reference in USE_CASE.references:
        lake.overwrite(reference_table(USE_CASE, reference), reference_data[reference.name])
    history = LiveHistory(lake, USE_CASE)
    history.look(last)
    table = make_table(USE_CASE, history.database(), datetime.now(UTC), None).rows
    instructions = events["settlement_instructions"]
    fields = instructions.filter(pc.equal(instructions["instruction_id"], table["entity_id"][0])).to_pylist()[-1]
    contract = USE_CASE.event("settlement_instructions").contract.__struct_fields__
    wanted = set(contract) - {"event_id", "event_time", "instruction_id"}
    return table, {
        name: str(value) if isinstance(value, date) else value for name, value in fields.items() if name in wanted
    }


def last_business_day(day: date) -> date:
    """Return the day, or the business day before it."""
    while not USE_CASE.calendar.is_business_day(day):
        day -= timedelta(days=1)
    return day


def measure(
    settings: Settings, rows: pa.Table, template: dict[str, Any], rounds: int, seconds: float, messages: int
) -> tuple[dict[str, list[Load]], float, list[float], list[str]]:
    """Return the loads of each turn, MiB over an idle process, freshness, and the lines on where the time goes."""
    os.sched_setaffinity(0, OTHER_CORE)
    ids = rows["entity_id"].to_pylist()
    known = [post(SCORE, {"entity_ids": [entity]}) for entity in ids]
    batch = [post(SCORE, {"entity_ids": ids[:1000]})]
    what_if = [
        post(SCORE, {"what_if": [{"settlement_instructions": {**template, "instruction_id": f"WHAT-IF-{number}"}}]})
        for number in range(1000)
    ]
    turns: dict[str, list[Load]] = {}
    with ExitStack() as stack:
        ours, process = stack.enter_context(service(settings))
        idle = stack.enter_context(idle_service(settings))
        more = (process.memory_info().rss - idle) / 2**20
        mlflow = stack.enter_context(mlflow_serving(settings, rows))
        bento = stack.enter_context(bentoml_serving(settings))
        bare, answer = stack.enter_context(bare_server(ours, known[0]))
        one, thousand = (ready_features(settings, rows.slice(0, count)) for count in (1, 1000))
        plan = [
            ("known entity, ml-assets serve", ours, known, CONNECTIONS),
            ("known entity, mlflow models serve", mlflow, [post("/invocations", {"inputs": one})], CONNECTIONS),
            ("known entity, bentoml serve", bento, [post("/score", one)], CONNECTIONS),
            (f"constant of {answer} bytes, bare uvicorn", bare, [post("/", {"entity_ids": ids[:1]})], CONNECTIONS),
            ("1,000 known entities, ml-assets serve", ours, batch, 1),
            ("1,000 known entities, mlflow models serve", mlflow, [post("/invocations", {"inputs": thousand})], 1),
            ("1,000 known entities, bentoml serve", bento, [post("/score", thousand)], 1),
            ("what-if, ml-assets serve", ours, what_if, CONNECTIONS),
        ]
        for _ in range(rounds):
            for name, port, requests, connections in plan:
                turns.setdefault(name, []).append(load(port, requests, connections=connections, seconds=seconds))
        where = [
            *where_time_goes("one known entity", process, KNOWN_ENTITY, lambda: load(ours, known, seconds=seconds)),
            *where_time_goes("one what-if", process, WHAT_IF, lambda: load(ours, what_if, seconds=seconds)),
        ]
    open_broker(settings)
    with service(settings) as (port, _):
        name = "known entity, each answer recorded to Kafka"
        turns[name] = [load(port, known, connections=CONNECTIONS, seconds=seconds) for _ in range(rounds)]
        fresh = freshness(settings, port, rows, messages)
    for name, loads in turns.items():
        assert not any(one.failed for one in loads), f"{name}: not all answers were 200"
    return turns, more, fresh, where


def where_time_goes(what: str, process: psutil.Process, parts: Sequence[Part], work: Callable[[], Load]) -> list[str]:
    """Return a section on where the time of a request goes, by its threads; the profiler slows them a little."""
    each = list[float]()

    def watched() -> None:
        before, started = sum(process.cpu_times()[:2]), time.perf_counter()
        answered = work().per_second * (time.perf_counter() - started)
        each.append((sum(process.cpu_times()[:2]) - before) / answered * 1e6)

    found = shares(profiled(peer_environment("py-spy", PY_SPY) / "py-spy", process.pid, 5, watched), parts)
    lines = [
        "", f"## Where the time of a request about {what} goes", "",
        f"{each[0]:,.0f} microseconds of processor time, with {CONNECTIONS} connections; shares as py-spy sees the",
        "threads that answer.", "", "| what | share | microseconds |", "| --- | ---: | ---: |",
    ]  # fmt: skip
    return [*lines, *(f"| {name} | {of:.0%} | {of * each[0]:,.0f} |" for name, of in found.items())]


def report(turns: dict[str, list[Load]], more: float, fresh: Sequence[float], at_more: AtMore | None) -> list[str]:
    """Return the tables of the page, with what the issue asked for."""
    median = {
        name: Load(
            *(statistics.median(getattr(one, field) for one in loads) for field in ("per_second", "p50", "p99")), 0
        )
        for name, loads in turns.items()
    }
    lines = ["| what | connections | answers a second | p50, ms | p99, ms |", "| --- | ---: | ---: | ---: | ---: |"]
    for name, one in median.items():
        lines.append(
            f"| {name} | {1 if name.startswith('1,000') else CONNECTIONS} | {one.per_second:,.0f} | {one.p50:.2f} | "
            f"{one.p99:.2f} |"
        )
    ours, *peers = (median[f"known entity, {name} serve"] for name in ("ml-assets", "mlflow models", "bentoml"))
    peer = max(one.per_second for one in peers)
    thousand, asked = median["1,000 known entities, ml-assets serve"], median["what-if, ml-assets serve"]
    fresh_median = statistics.median(fresh)
    goals = [
        ("known entities, at least 4,000 answers a second", f"{ours.per_second:,.0f}", ours.per_second >= 4000),
        ("their p99 below 10 ms", f"{ours.p99:.1f} ms", ours.p99 < 10),
        (
            "at least 5 times the faster of MLflow and BentoML",
            f"{ours.per_second / peer:.1f} times",
            ours.per_second >= 5 * peer,
        ),
        ("1,000 known entities below 15 ms", f"{thousand.p50:.1f} ms", thousand.p50 < 15),
        ("what-if, p99 below 60 ms", f"{asked.p99:.0f} ms", asked.p99 < 60),
        ("less than 300 MiB over an idle process", f"{more:.0f} MiB", more < 300),
        ("from produced to served, median at most 5 s", f"{fresh_median:.1f} s", fresh_median <= 5),
    ]
    told = f"Freshness of {len(fresh)} messages: {min(fresh):.1f} to {max(fresh):.1f} s, default flush of 2 s."
    if at_more:
        found = statistics.median(at_more.fresh)
        goals.append((f"at {at_more.times} times the volume at most 8 s", f"{found:.1f} s", found <= 8))
        told += f" At {at_more.times} times the volume, with {at_more.decisions:,} open decisions: "
        told += f"{min(at_more.fresh):.1f} to {max(at_more.fresh):.1f} s."
    lines += ["", "| goal | measured | |", "| --- | ---: | --- |"]
    lines += [f"| {goal} | {found} | {'met' if met else 'not met'} |" for goal, found, met in goals]
    return [*lines, "", told]


@contextmanager
def running(command: list[str], port: int, ready: str, **environment: str) -> Iterator[psutil.Process]:
    """Run a server on the server's core until the block ends; it begins when `ready` answers with 200."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            ["taskset", "-c", *map(str, SERVER_CORE), *command], stdout=log, stderr=log,
            env={**os.environ, **environment},
        )  # fmt: skip
        try:
            ends = time.monotonic() + 600
            while not answers(port, ready):
                if process.poll() is not None or time.monotonic() > ends:
                    log.seek(0)
                    raise RuntimeError(f"{command} does not answer: {log.read()[-2000:].decode()}")
                time.sleep(0.2)
            yield psutil.Process(process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def answers(port: int, path: str) -> bool:
    """Return whether a server answers with 200."""
    try:
        return ask(port, path)[0] == 200
    except OSError:
        return False


def ask(port: int, path: str, body: Any = None) -> tuple[int, bytes]:
    """Return status and body of one request on a connection of its own."""
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET" if body is None else "POST", path, None if body is None else json.dumps(body),
                           {"content-type": "application/json"})  # fmt: skip
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def service(settings: Settings) -> Iterator[tuple[int, psutil.Process]]:
    """Run `ml-assets serve` on the stage."""
    port = free_port()
    command = [sys.executable, "-m", "ml_assets.cli.main", "serve", "--port", str(port)]
    with running(command, port, "/health/ready", ML_ASSETS_HOME=str(settings.home_path)) as process:
        yield port, process


@contextmanager
def idle_service(settings: Settings) -> Iterator[int]:
    """Run `ml-assets serve` on an empty lake, and give the bytes of memory that it takes; it ends with the block."""
    port = free_port()
    command = [sys.executable, "-m", "ml_assets.cli.main", "serve", "--port", str(port)]
    home = {"ML_ASSETS_HOME": str(settings.home_path), "ML_ASSETS_LAKE_ROOT": str(settings.home_path / "empty")}
    with running(command, port, "/health/live", **home) as process:
        time.sleep(5)
        taken = process.memory_info().rss
    yield taken


@contextmanager
def mlflow_serving(settings: Settings, rows: pa.Table) -> Iterator[int]:
    """Run `mlflow models serve` on the ONNX model of the stage."""
    import mlflow.onnx
    import onnx
    from mlflow.models import infer_signature

    folder, port = settings.home_path / "mlflow_model", free_port()
    scorer = Scorer.from_files(settings.home_path / "models" / "run1")
    numbers, categories = model_arrays(scorer.manifest.features, rows.slice(0, 2))
    given = {"numeric": numbers, "categorical": categories.astype(str)}
    mlflow.onnx.save_model(
        onnx.load(settings.home_path / "models" / "run1" / MODEL_FILE), str(folder), signature=infer_signature(given)
    )
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", str(folder), "--env-manager", "local",
               "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]  # fmt: skip
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with running(command, port, "/ping", PATH=path):
        yield port


def ready_features(settings: Settings, rows: pa.Table) -> dict[str, Any]:
    """Return the inputs of the model by which its peers are asked for the scores of rows."""
    scorer = Scorer.from_files(settings.home_path / "models" / "run1")
    numbers, categories = model_arrays(scorer.manifest.features, rows)
    return {"numeric": numbers.tolist(), "categorical": categories.astype(str).tolist()}


@contextmanager
def bentoml_serving(settings: Settings) -> Iterator[int]:
    """Run `bentoml serve` on the ONNX model of the stage, in an environment of its own."""
    programs, port = peer_environment("bentoml", BENTOML, f"onnxruntime=={version('onnxruntime')}"), free_port()
    command = [str(programs / "bentoml"), "serve", "peer_bentoml:Peer", "--host", "127.0.0.1", "--port", str(port)]
    environment = {
        "PEER_MODEL": str(settings.home_path / "models" / "run1" / MODEL_FILE), "BENTOML_DO_NOT_TRACK": "True",
        "BENTOML_HOME": str(settings.home_path / "bentoml"), "PYTHONPATH": str(Path(__file__).parent),
        "ORT_DISABLE_TELEMETRY": "1",
    }  # fmt: skip
    with running(command, port, "/readyz", **environment):
        yield port


def peer_environment(name: str, *packages: str) -> Path:
    """Return the folder of programs of an environment with these packages; it is made below this one, once."""
    folder = Path(sys.prefix) / "peers" / "-".join([name, *(one.replace("==", "-") for one in packages)])
    if not (folder / "made").exists():
        uv = Path(sys.prefix) / "bin" / "uv"
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, folder], check=True)
        subprocess.run([uv, "pip", "install", "--quiet", "--python", folder / "bin" / "python", *packages], check=True)
        (folder / "made").touch()
    return folder / "bin"


@contextmanager
def bare_server(port_of_ours: int, request: bytes) -> Iterator[tuple[int, int]]:
    """Run uvicorn on an app that answers with as many bytes as our service does; give port and number of bytes."""
    size, port = len(ask(port_of_ours, SCORE, json.loads(request.partition(b"\r\n\r\n")[2]))[1]), free_port()
    program = f"""
import uvicorn
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    if scope["method"] == "POST":
        while (await receive())["more_body"]:
            pass
    await send({{"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"{size}")]}})
    await send({{"type": "http.response.body", "body": b"x" * {size}}})
uvicorn.run(app, port={port}, loop="uvloop", http="httptools", access_log=False, log_level="warning", lifespan="off")
"""
    with running([sys.executable, "-c", program], port, "/"):
        yield port, size


def freshness(settings: Settings, port: int, rows: pa.Table, count: int) -> list[float]:
    """Return seconds from producing a message to the changed score being served, with a lander as it is run."""
    matched = rows.filter(pc.and_(pc.equal(rows["matching_status"], "MACH"), pc.equal(rows["on_hold_at"], "NONE")))
    entities, kafka, seconds = matched["entity_id"].to_pylist(), kafka_connection(settings), list[float]()
    command = [sys.executable, "-m", "ml_assets.cli.main", "land", "--follow"]
    metrics = free_port()
    home = {"ML_ASSETS_HOME": str(settings.home_path), "ML_ASSETS_METRICS_PORT": str(metrics)}
    topic, contract = (event := USE_CASE.event("settlement_status")).topic, event.contract
    with running(command, metrics, "/ready", **home) as lander:
        lander.cpu_affinity(list(OTHER_CORE))
        for number, entity in enumerate(entities[:count]):
            before = score_of(port, entity)
            fields = {"event_id": f"fresh-{number}", "event_time": datetime.now(UTC), "instruction_id": entity,
                      "status": "NMAT", "reason": "DDEA"}  # fmt: skip
            value = msgspec.json.encode(msgspec.convert(fields, contract))
            started = time.perf_counter()
            produce(kafka, [Message(topic, entity.encode(), value, int(time.time() * 1000))])
            while score_of(port, entity) == before:
                assert time.perf_counter() - started < 60, f"the score of {entity} has not changed in a minute"
                time.sleep(0.01)
            seconds.append(time.perf_counter() - started)
            time.sleep(0.31 * number % 2)
    return seconds


def score_of(port: int, entity: str) -> float:
    """Return the score that the service gives an entity."""
    (score,) = json.loads(ask(port, SCORE, {"entity_ids": [entity]})[1])["scores"]
    return float(score["probability"])


if __name__ == "__main__":
    main()
