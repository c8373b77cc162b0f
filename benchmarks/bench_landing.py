"""`make bench-landing`: how fast and how steadily messages land, into docs/benchmarks-landing.md.

Everything in one run against one Apache Kafka: the lander; its ceiling, the same work without commits; a consumer as
it is written first, message by message; and quixstreams, which lands Kafka to Parquet, in a virtual environment of
its own since it pins an older client.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter

import msgspec
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from confluent_kafka import Consumer, KafkaError, TopicPartition
from deltalake import write_deltalake

from benchmarks.bench_report import DOCS, page
from ml_assets.contracts import Event
from ml_assets.lake import Lake, landing_table
from ml_assets.landing.batch import landing_rows
from ml_assets.landing.decode import Decoder
from ml_assets.landing.kafka import KafkaConnection
from ml_assets.landing.lander import Lander
from ml_assets.landing.produce import ensure_topics, produce
from ml_assets.spec import EventSpec
from ml_assets_tests.kafka.apache import apache_kafka
from ml_assets_tests.landing.messages import Message

REPORT = DOCS / "benchmarks-landing.md"
PEER = "quixstreams==3.28.1"
ROUNDS = 3
LANDERS = (1, 2, 4)
BATCH = 50_000
STARTED = datetime(2026, 1, 5, 9, tzinfo=UTC)


class Trade(Event, frozen=True, kw_only=True):
    """An event that is 300 bytes of JSON."""

    uti: str
    isin: str
    counterparty: str
    place: str
    side: str
    quantity: int
    price: float
    currency: str
    account: str


def trade(topic: str) -> EventSpec:
    """Return the event on a topic."""
    return EventSpec("trade", topic, Trade, "A trade.")


def messages(topic: str, count: int) -> Iterator[Message]:
    """Yield so many messages of 300 bytes, a minute of event time each 10,000."""
    for number in range(count):
        value = msgspec.json.encode(
            Trade(
                event_id=f"event-{number:012d}",
                event_time=STARTED,
                uti=f"529900T8BM49AURSDO55{number:032d}",
                isin=f"DE{number % 4000:010d}",
                counterparty=f"5299{number % 60:016d}",
                place="DAKVDEFFXXX",
                side="DELI" if number % 2 else "RECE",
                quantity=number,
                price=number / 7,
                currency="EUR",
                account=f"SAFE{number % 1000:08d}",
            )
        )
        yield Message(topic, str(number % 100).encode(), value)


def main() -> None:
    """Measure and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=500_000, help="messages of the comparison")
    parser.add_argument("--long", type=int, default=5_000_000, help="messages over which memory is watched; 0: not")
    parser.add_argument("--shared", type=int, default=2_000_000, help="messages that several landers share")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ml_assets_bench_") as folder, apache_kafka(Path(folder) / "kafka") as node:
        home, kafka = Path(folder), KafkaConnection(node.bootstrap)
        topic = "bench"
        ensure_topics(kafka, [topic])
        produce(kafka, messages(topic, asked.messages))
        size = len(next(messages(topic, 1)).value)
        ways: dict[str, Callable[[Path], float]] = {
            "ml-assets land": lambda path: land(kafka, topic, asked.messages, path),
            "ceiling: consume, decode, encode Parquet, no commit": lambda path: ceiling(kafka, topic, path),
            "message by message: poll, json.loads, from_pylist, append": lambda path: plain(
                kafka, topic, asked.messages // 5, path
            ),
        }
        speeds: dict[str, list[float]] = {name: [] for name in ways}
        for round_number in range(ROUNDS):
            for number, (name, way) in enumerate(ways.items()):
                speeds[name].append(way(home / f"round{round_number}-{number}"))
        speeds[f"{PEER}, to Parquet files"] = [peer(node.bootstrap, topic, asked.messages // 5, home)]
        memory = watch_memory(kafka, asked.long, home) if asked.long else []
        seconds = latency(kafka, home)
        shared = {landers: together(kafka, landers, asked.shared, home) for landers in LANDERS}
    write(asked.messages, size, speeds, memory, seconds, shared)
    print(REPORT.read_text(encoding="utf-8"))  # noqa: T201 - this is what it is for


def land(kafka: KafkaConnection, topic: str, count: int, folder: Path) -> float:
    """Return messages a second of the lander, from the broker to committed Delta."""
    lander = Lander(Lake(str(folder)), [trade(topic)], kafka)
    started = perf_counter()
    (report,) = lander.land_available()
    seconds = perf_counter() - started
    assert report.landed == count
    return count / seconds


def ceiling(kafka: KafkaConnection, topic: str, folder: Path) -> float:
    """Return messages a second of the same work without Delta: nothing is committed, nothing could be resumed."""
    folder.mkdir(parents=True)
    event, decoder = trade(topic), Decoder(Trade)
    started, count, batch, part = perf_counter(), 0, [], 0

    def encode() -> None:
        rows = landing_rows(event, decoder, "epoch", batch).rows
        pq.write_table(rows, folder / f"{part}.parquet", compression="zstd")

    for message in read(kafka, topic):
        batch.append(message)
        if len(batch) == BATCH:
            encode()
            count, part, batch = count + len(batch), part + 1, []
    encode()
    return (count + len(batch)) / (perf_counter() - started)


def plain(kafka: KafkaConnection, topic: str, count: int, folder: Path) -> float:
    """Return messages a second of a consumer as it is written first; it loses rows when it crashes."""
    consumer = Consumer(kafka.config(group_id="plain", enable_auto_commit=False, auto_offset_reset="earliest"))
    consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions(kafka, topic)])
    started, rows, taken = perf_counter(), [], 0
    while taken < count:
        message = consumer.poll(1.0)
        if message is None or message.error():
            continue
        rows.append(json.loads(message.value()))
        taken += 1
        if len(rows) == BATCH or taken == count:
            write_deltalake(str(folder), pa.Table.from_pylist(rows), mode="append")
            rows = []
    consumer.close()
    return count / (perf_counter() - started)


def peer(bootstrap: str, topic: str, count: int, home: Path) -> float:
    """Return messages a second of quixstreams' sink for Parquet files, from its first to its last message."""
    environment = home / "peer"
    python = environment / "bin" / "python"
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, environment], check=True)
    subprocess.run([uv, "pip", "install", "--quiet", "--python", python, PEER, "pyarrow"], check=True)
    program = textwrap.dedent(f"""
        import time
        from quixstreams import Application
        from quixstreams.sinks.community.file.local import LocalFileSink
        from quixstreams.sinks.community.file.formats.parquet import ParquetFormat

        app = Application({bootstrap!r}, consumer_group="peer", auto_offset_reset="earliest", loglevel="WARNING")
        seen = []

        def stamp(value):
            seen.append(time.perf_counter()) if not seen or len(seen) == 1 else seen.__setitem__(1, time.perf_counter())
            return value

        frame = app.dataframe(app.topic({topic!r}, value_deserializer="json"))
        frame.apply(stamp).sink(LocalFileSink(directory="peer_out", format=ParquetFormat()))
        app.run(count={count}, timeout=60)
        print({count} / (time.perf_counter() - seen[0]))
    """)
    done = subprocess.run([python, "-c", program], capture_output=True, text=True, check=False, cwd=home)
    if done.returncode:
        raise RuntimeError(f"{PEER} failed: {done.stderr[-2000:]}")
    assert list((home / "peer_out").rglob("*.parquet")), "the peer has written nothing"
    return float(done.stdout.strip().splitlines()[-1])


def landed_of(lake: Lake, topic: str) -> int:
    """Return how many messages of a topic are committed."""
    return sum(file.rows for file in lake.files(landing_table(topic), "business_date"))


def watch_memory(kafka: KafkaConnection, count: int, home: Path) -> list[tuple[int, float]]:
    """Return the memory of a lander in a process of its own, as (messages landed, MiB), while it lands many."""
    topic = "bench-long"
    ensure_topics(kafka, [topic])
    produce(kafka, messages(topic, count))
    program = (
        "import sys; from benchmarks.bench_landing import *; "
        "Lander(Lake(sys.argv[1]), [trade(sys.argv[2])], KafkaConnection(sys.argv[3])).land_available()"
    )
    folder = home / "long"
    process = subprocess.Popen([sys.executable, "-c", program, str(folder), topic, kafka.bootstrap])
    lake, watched, seen = Lake(str(folder)), psutil.Process(process.pid), []
    while process.poll() is None:
        time.sleep(1)
        landed = landed_of(lake, topic)
        try:
            seen.append((landed, watched.memory_info().rss / 2**20))
        except psutil.NoSuchProcess:
            break
    assert process.returncode == 0
    return [point for point in seen if point[0]]


def together(kafka: KafkaConnection, landers: int, count: int, home: Path) -> float:
    """Return messages a second that landers with a process and a partition each commit between them.

    They share the partitions by themselves, as pods do. Measured is from 30 % of the messages to 90 % of them: before,
    not all have joined, and after, not all have work.
    """
    topic = f"bench-{landers}-landers"
    ensure_topics(kafka, [topic], partitions=landers)
    produce(kafka, messages(topic, count))
    program = (
        "import signal, sys, threading; from benchmarks.bench_landing import *; "
        "stop = threading.Event(); signal.signal(signal.SIGTERM, lambda *_: stop.set()); "
        "Lander(Lake(sys.argv[1]), [trade(sys.argv[2])], KafkaConnection(sys.argv[3]), assignment='group').run(stop)"
    )
    folder = home / topic
    lake = Lake(str(folder))
    command = [sys.executable, "-c", program, str(folder), topic, kafka.bootstrap]
    processes = [subprocess.Popen(command) for _ in range(landers)]
    first: tuple[float, int] | None = None
    try:
        while True:
            landed = landed_of(lake, topic)
            now = perf_counter()
            if landed >= 0.3 * count and first is None:
                first = now, landed
            if landed >= 0.9 * count and first is not None:
                return (landed - first[1]) / (now - first[0])
            assert all(process.poll() is None for process in processes), "a lander has ended"
            time.sleep(0.05)
    finally:
        for process in processes:
            process.terminate()  # it leaves the group, which the next ones join
            process.wait()


def latency(kafka: KafkaConnection, home: Path) -> list[float]:
    """Return seconds from producing a message to finding it committed, at the default flush."""
    topic = "bench-latency"
    ensure_topics(kafka, [topic])
    lake, stop = Lake(str(home / "latency")), threading.Event()
    runner = threading.Thread(target=Lander(lake, [trade(topic)], kafka).run, args=(stop,))
    runner.start()
    seconds = []
    for number in range(10):
        produce(kafka, messages(topic, 1))
        sent = perf_counter()
        while landed_of(lake, topic) <= number:
            time.sleep(0.01)
        seconds.append(perf_counter() - sent)
        time.sleep(0.37 * number)
    stop.set()
    runner.join()
    return seconds


def read(kafka: KafkaConnection, topic: str) -> Iterator[object]:
    """Yield the messages of a topic to its end."""
    consumer = Consumer(kafka.config(group_id="ceiling", enable_partition_eof=True, queued_max_messages_kbytes=65_536))
    unread = partitions(kafka, topic)
    consumer.assign([TopicPartition(topic, partition, 0) for partition in unread])
    while unread:
        for message in consumer.consume(5_000, timeout=0.2):
            error = message.error()
            if error is None:
                yield message
            elif error.code() == KafkaError._PARTITION_EOF:
                unread.discard(message.partition())
    consumer.close()


def partitions(kafka: KafkaConnection, topic: str) -> set[int]:
    """Return the partitions of a topic."""
    return set(kafka.admin().topics([topic])[topic].partitions)


def write(
    count: int,
    size: int,
    speeds: dict[str, list[float]],
    memory: list[tuple[int, float]],
    seconds: list[float],
    shared: dict[int, float],
) -> None:
    """Write the report."""
    ours = statistics.median(speeds["ml-assets land"])
    about = [
        "Written by `make bench-landing`, on Apache Kafka on the same machine. Speeds depend on the machine; read the",
        "ratios, whose sides are measured in turns. The ceiling does its work in one thread, the lander in two.",
    ]
    messages = f"{count:,} messages of {size} bytes, 2 partitions"
    facts = [f"{messages}; median of {ROUNDS} rounds; the slow ones a fifth of them"]
    lines = ["| way from the broker | messages a second | the lander is |", "| --- | ---: | ---: |"]
    lines += [
        f"| {name} | {statistics.median(found):,.0f} | {ours / statistics.median(found):.2f} times that |"
        for name, found in speeds.items()
    ]
    lines += [
        "",
        f"From produced to committed at the default flush of 2 s: median {statistics.median(seconds):.2f} s, longest "
        f"{max(seconds):.2f} s, of {len(seconds)}.",
    ]
    lines += [
        "",
        f"Landers that share a topic, each a process with one partition; on {os.cpu_count()} "
        "cores, which the broker has too:",
        "",
        "| landers | messages a second | to one |",
        "| ---: | ---: | ---: |",
        *(f"| {landers} | {found:,.0f} | {found / shared[1]:.2f} |" for landers, found in shared.items()),
    ]
    if memory:
        total = memory[-1][0]
        parts = [[mib for landed, mib in memory if landed <= total * share] for share in (0.2, 0.5, 1.0)]
        lines += [
            "",
            f"Memory of a lander over {total:,} messages: at most "
            + ", ".join(
                f"{max(part):,.0f} MiB up to {share:.0%} of them"
                for part, share in zip(parts, (0.2, 0.5, 1.0), strict=True)
                if part
            )
            + ".",
        ]
    REPORT.write_text(page("Benchmarks of landing", about, facts, lines), encoding="utf-8")


if __name__ == "__main__":
    main()
