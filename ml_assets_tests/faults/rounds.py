"""A round of the campaign: messages come, something breaks and heals; then the lake must hold what was produced.

A round is drawn from its seed alone: the kind of fault is `KINDS[seed % len(KINDS)]`, and numbers, times and partners
come from a generator of that seed. Timing is the machine's, so the same seed need not meet the same moment.
"""

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from ml_assets.lake import Lake
from ml_assets.landing.produce import ensure_topics
from ml_assets_tests.faults import adapter
from ml_assets_tests.faults.adapter import SESSION_SECONDS
from ml_assets_tests.faults.disk import FullDisk, small_disk, unlimited, without_room
from ml_assets_tests.faults.job import Job
from ml_assets_tests.faults.messages import moved, plan
from ml_assets_tests.faults.oracle import Produced, Sender, dates_of, has_landed, verify, verify_curated
from ml_assets_tests.faults.processes import LanderProcess, Landers
from ml_assets_tests.faults.proxy import COMMIT, Action, Fault, FaultProxy, Injected
from ml_assets_tests.kafka.apache import ApacheKafka
from ml_assets_tests.kafka.topics import delete_topic, topic_id
from ml_assets_tests.s3 import S3Server

_TO_LAND = 90.0
_TO_LEAVE = 10.0
_MOST_RESTARTS = 30


@dataclass(frozen=True, slots=True)
class World:
    """What all rounds share."""

    kafka: ApacheKafka
    s3: S3Server
    proxy: FaultProxy
    landers: Landers


class Round:
    """One round: its topics, its lake, its landers."""

    def __init__(self, world: World, seed: int, folder: Path, kind: str) -> None:
        self.world = world
        self.kind = kind
        self.chance = random.Random(seed)
        self._folder = folder
        self._stack = contextlib.ExitStack()
        self._landers: list[LanderProcess] = []
        self._restarts = 0
        self._life = 0
        self.disk: FullDisk | None = None
        self.assignment = self.chance.choice(["group", "all"])
        self.topics = [f"faults-{seed}-{uuid4().hex[:6]}-{n}" for n in range(self.chance.choice([1, 1, 2]))]
        self.events = [moved(topic) for topic in self.topics]
        self.produced = {topic: Produced(topic) for topic in self.topics}
        self._clean = Lake(str(folder / "clean"))
        self._connection = self.chance.choice([world.kafka.plain, world.kafka.secure])
        self._partitions = self.chance.choice([1, 2, 4])
        self._bucket = world.s3.create_bucket(f"faults-{uuid4().hex[:12]}")
        self._set_lake(f"{self._bucket}/lake", world.s3.lake_options, world.proxy.server.lake_options)

    def run(self) -> None:
        """Do the this.

        Raises:
            AssertionError: something was lost, doubled or changed, or a lander did not do what it must.
        """
        with self._stack:
            self._stack.callback(self._end)
            self.new_topics()
            KINDS[self.kind](self)
            self.finish()

    # What a fault is made of.

    def on_disk(self) -> None:
        """Have the lake in a folder instead of on S3."""
        self._set_lake(str(self._folder / "lake"), {}, {})

    def on_small_disk(self) -> None:
        """Have the lake in a folder that can be full."""
        self.disk = self._stack.enter_context(small_disk(self._folder / "disk"))
        self._set_lake(str(self.disk.folder / "lake"), {}, {})

    def new_topics(self) -> None:
        """Create the topics; those of an earlier life are deleted."""
        for topic in self.topics:
            if self._life:
                delete_topic(self.world.kafka.plain, topic)
            ensure_topics(self.world.kafka.plain, [topic], partitions=self._partitions)
        self._life += 1
        self._epochs = {topic: topic_id(self.world.kafka.plain, topic) for topic in self.topics}

    @contextlib.contextmanager
    def producing(self, seconds: float = 1.5) -> Iterator[None]:
        """Send messages beside a block, over about so many seconds; after it the broker has them all."""
        chance = random.Random(self.chance.random())
        messages = [
            message
            for topic in self.topics
            for message in plan(
                topic, self.chance.randint(200, 1200), chance, prefix=f"{self._life}-{uuid4().hex[:4]}-"
            )
        ]
        sender = Sender(self.world.kafka.plain, self._epochs, self.produced)
        thread = threading.Thread(target=sender.send, args=(messages, chance), kwargs={"seconds": seconds})
        thread.start()
        try:
            yield
        finally:
            thread.join()
        sender.flush()

    def produce_until(self, reached: Callable[[], bool], what: str) -> None:
        """Send messages until something has happened, and for as long as that takes."""
        until = time.monotonic() + _TO_LAND
        while not reached():
            assert time.monotonic() < until, f"after {_TO_LAND:.0f} s of messages still not: {what}: {self._account()}"
            with self.producing(0.7):
                pass

    def lander(self, **changes: Any) -> LanderProcess:
        """Start a lander."""
        job = Job(
            name=f"lander{len(self._landers)}",
            folder=str(self._folder),
            lake_root=self._root,
            lake_options=self._options,
            kafka={**asdict(self._connection), "password": self._connection.password.get_secret_value()},
            topics=self.topics,
            **{
                "assignment": self.assignment,
                "flush_rows": self.chance.choice([50, 200, 1000]),
                "flush_bytes": self.chance.choice([100_000, 4 << 20]),
                **changes,
            },
        )
        process = self.world.landers.start(job)
        self._landers.append(process)
        self._stack.callback(process.close)
        return process

    def inject(self, action: Action, **how: Any) -> Injected:
        """Let the store misbehave towards the landers."""
        return self.world.proxy.inject(Fault(action, **how))

    def nap(self, shortest: float, longest: float) -> None:
        """Let some time pass."""
        time.sleep(self.chance.uniform(shortest, longest))

    def until_landed(self) -> None:
        """Wait until the lake accounts for all that was produced; a lander that gave up is started again."""
        until = time.monotonic() + _TO_LAND
        while not all(has_landed(self.lake, produced) for produced in self.produced.values()):
            assert time.monotonic() < until, f"not landed after {_TO_LAND:.0f} s: {self._account()}"
            self._supervise()
            time.sleep(0.1)

    def land_clean(self) -> None:
        """Land what the topics hold without any fault, into a lake of its own."""
        adapter.land_all(self._clean, self.events, self.world.kafka.plain)

    def compact(self) -> None:
        """Compact the landing tables, in a process of its own, to the end."""
        compaction = self.lander(compact=True)
        assert compaction.wait(60), "compaction does not end"
        left = compaction.left()
        assert left is not None, "compaction died"
        assert not left.error, f"compaction failed: {left.error}: {compaction.log()}"

    def leave(self, process: LanderProcess) -> None:
        """End a lander with SIGTERM: it must flush, and be gone within its time."""
        process.ask_to_leave()
        if not process.wait(_TO_LEAVE):
            process.show_stack()
            raise AssertionError(f"{process.job.name} has not left {_TO_LEAVE:.0f} s after SIGTERM: {process.log()}")
        left = process.left()
        assert left is not None, f"{process.job.name} died of SIGTERM instead of leaving"
        assert not left.error, f"{process.job.name} left with {left.error}: {process.log()}"

    # How a round ends.

    def finish(self) -> None:
        """Heal everything, wait for the rest to land, and check."""
        self.heal()
        self.until_landed()
        for process in self._landers:
            if process.alive:
                self.leave(process)
        assert all(has_landed(self.lake, produced) for produced in self.produced.values())
        for event in self.events:
            verify(self.lake, event, self.produced[event.topic])
        self.land_clean()
        verify_curated(self.lake, self._clean, self.events, dates_of(self.produced.values()))

    def heal(self) -> None:
        """End every fault; processes that were killed stay dead."""
        self.world.proxy.lift_all()
        if self.disk is not None:
            self.disk.free()
        for process in self._landers:
            unlimited(process.pid)
            process.resume()

    def _end(self) -> None:
        self.world.proxy.lift_all()
        if not self.world.kafka.running:
            self.world.kafka.start()
        self.world.kafka.resume()
        for topic in self.topics:
            delete_topic(self.world.kafka.plain, topic)

    def _supervise(self) -> None:
        """Start a lander if none is left, as Kubernetes would."""
        if any(process.alive for process in self._landers if not process.job.compact):
            return
        self._restarts += 1
        assert self._restarts < _MOST_RESTARTS, f"the landers give up again and again: {self._landers[-1].log()}"
        self.lander()

    def _set_lake(self, root: str, options: dict[str, str], landers_options: dict[str, str]) -> None:
        self.lake = Lake(root, options)
        self._root, self._options = root, landers_options

    def _account(self) -> str:
        """Return what a person needs to see of a round that hangs."""
        lines = [f"{topic}: ends {produced.ends()}" for topic, produced in self.produced.items()]
        for process in self._landers:
            if process.alive:
                process.show_stack()
            lines.append(f"--- {process.job.name}, alive {process.alive}, left {process.left()}\n{process.log()}")
        return "\n".join([*lines, "--- store", *list(self.world.proxy.requests)[-15:]])


# The faults. Each starts the landers and the producing, breaks something, and returns; the round heals and checks.


def _dies_at(step: str) -> Callable[[Round], None]:
    def fault(this: Round) -> None:
        """One lander kills itself at a step, another one takes over."""
        if this.chance.random() < 0.3:
            this.on_disk()
        victim = this.lander(step=step, nth=this.chance.randint(1, 3), act="kill")
        this.produce_until(lambda: not victim.alive, f"{victim.job.name} came to the step {step}")
        if this.chance.random() < 0.5:
            this.nap(0, 1)
        this.lander()

    return fault


def dies_at_any_time(this: Round) -> None:
    """A lander is killed at no particular moment, twice."""
    with this.producing(2.5):
        for _ in range(2):
            victim = this.lander()
            this.nap(0.3, 1.5)
            victim.kill()
    this.lander()


def dies_during_compaction(this: Round) -> None:
    """Compaction is killed before or after its commit, or its commit arrives after its death; a lander goes on."""
    first = this.lander(flush_rows=50)
    for _ in range(2):  # so that there is something to compact
        with this.producing(0.5):
            pass
        this.until_landed()
    match this.chance.choice(["after_commit", "before_commit", "commit_arrives_late"]):
        case "after_commit":  # and before old files are removed
            with this.producing(1.0):
                compaction = this.lander(compact=True, step="during_compaction", act="kill")
                assert compaction.wait(60), "compaction does not end"
                assert compaction.left() is None, f"compaction was not killed: {compaction.left()}"
        case late:
            this.leave(first)
            action = Action.HOLD if late == "before_commit" else Action.ARRIVE_LATE
            held = this.inject(action, path=COMMIT, method="PUT", times=1)
            compaction = this.lander(compact=True)
            assert held.wait(), f"compaction did not come to its commit: {compaction.log()}"
            compaction.kill()
            with this.producing(1.0):
                this.lander()
                this.nap(0, 1)
                held.lift()
    this.compact()


def compacts_while_landing(this: Round) -> None:
    """Compaction after compaction beside a lander, neither harms the other."""
    this.lander(flush_rows=50)
    with this.producing(3.0):
        for _ in range(3):
            this.compact()
            this.nap(0, 0.5)


def dies_with_commit_under_way(this: Round) -> None:
    """The data files are written and the commit is sent but does not arrive: the lander dies."""
    held = this.inject(Action.HOLD, path=COMMIT, method="PUT", times=1)
    victim = this.lander()
    with this.producing():
        assert held.wait(), f"no commit was sent: {victim.log()}"
        victim.kill()
    held.lift()
    this.lander()


def commit_arrives_after_its_lander_died(this: Round) -> None:
    """The commit of a dead lander arrives when another one is at work, or has done it all."""
    held = this.inject(Action.ARRIVE_LATE, path=COMMIT, method="PUT", times=1)
    victim = this.lander()
    with this.producing():
        assert held.wait(), f"no commit was sent: {victim.log()}"
        victim.kill()
        this.lander()
        this.nap(0, 1.5)
    if this.chance.random() < 0.5:
        this.until_landed()
    held.lift()
    this.nap(0.2, 0.5)


def _paused_at(step: str) -> Callable[[Round], None]:
    def fault(this: Round) -> None:
        """A lander is stopped at a step for longer than its session, another one lands everything, it wakes."""
        sleeper = this.lander(step=step, nth=this.chance.randint(1, 3), act="pause", assignment="group")
        this.produce_until(lambda: sleeper.paused, f"{sleeper.job.name} came to the step {step}")
        this.lander(assignment="group")
        this.nap(SESSION_SECONDS, SESSION_SECONDS + 1)
        if this.chance.random() < 0.7:
            this.until_landed()
        sleeper.resume()
        with this.producing(0.5):
            this.nap(0, 0.5)

    return fault


def paused_with_commit_under_way(this: Round) -> None:
    """A lander is stopped after its commit was sent; it arrives when others have gone on, or when it has woken."""
    sleeper = this.lander(assignment="group")
    held = this.inject(Action.ARRIVE_LATE, path=COMMIT, method="PUT", times=1)
    with this.producing(2.0):
        assert held.wait(), f"no commit was sent: {sleeper.log()}"
        sleeper.pause()
        this.lander(assignment="group")
        this.nap(SESSION_SECONDS, SESSION_SECONDS + 1)
    first, second = (held.lift, sleeper.resume) if this.chance.random() < 0.5 else (sleeper.resume, held.lift)
    first()
    this.nap(0, 1)
    second()
    with this.producing(0.5):
        pass


def paused_again_and_again(this: Round) -> None:
    """Two landers are stopped and go on in turns, at no particular moment."""
    pair = [this.lander(), this.lander()]
    with this.producing(3.0):
        for _ in range(4):
            sleeper = this.chance.choice(pair)
            sleeper.pause()
            this.nap(0.2, 1.2)
            sleeper.resume()


def broker_stops(this: Round) -> None:
    """The broker is stopped in order, and started again."""
    _broker_away(this, this.world.kafka.stop)


def broker_dies(this: Round) -> None:
    """The broker is killed, and started again."""
    _broker_away(this, this.world.kafka.kill)


def _broker_away(this: Round, end: Callable[[], None]) -> None:
    this.lander()
    if this.chance.random() < 0.5:
        this.lander()
    with this.producing(1.5):
        this.nap(0.3, 1.2)
        end()
        this.nap(0, 1)
        this.world.kafka.start()


def broker_freezes(this: Round) -> None:
    """The broker stops answering for seconds; no connection is closed."""
    this.lander()
    with this.producing(1.5):
        this.nap(0.3, 1.0)
        this.world.kafka.pause()
        this.nap(1, 5)
        this.world.kafka.resume()


def broker_freezes_beyond_the_session(this: Round) -> None:
    """The broker stops answering for longer than the landers' session, and goes on."""
    for _ in range(this.chance.choice([1, 2])):
        this.lander(assignment="group")
    with this.producing(1.5):
        this.nap(0.3, 1.0)
        this.world.kafka.pause()
        this.nap(SESSION_SECONDS + 1, 3 * SESSION_SECONDS)
        this.world.kafka.resume()
    with this.producing(1.0):
        pass


def answers_are_lost_to_two_with_small_commits(this: Round) -> None:
    """Two landers of a group commit every 100 rows or each second, and the answers to their commits get lost."""
    for _ in range(2):
        this.lander(assignment="group", flush_rows=100, flush_seconds=1.0)
    with this.producing(4.0):
        this.nap(0, 0.7)
        injected = this.inject(Action.LOSE_ANSWER, path=COMMIT, method="PUT", share=0.6)
        this.nap(3.0, 6.0)
        injected.lift()


def _store(action: Action, *, shortest: float = 1.0, longest: float = 3.0, **how: Any) -> Callable[[Round], None]:
    def fault(this: Round) -> None:
        """The store misbehaves for seconds while landers land."""
        this.lander()
        if this.chance.random() < 0.5:
            this.lander()
        with this.producing(2.0):
            this.nap(0, 0.7)
            injected = this.inject(action, **how)
            this.nap(shortest, longest)
            injected.lift()

    return fault


def leaves_while_store_hangs(this: Round) -> None:
    """A lander is asked to leave while the store does not answer: it is gone in its time, and nothing is lost."""
    victim = this.lander()
    with this.producing(1.0):
        hung = this.inject(Action.HANG, method="PUT")
        assert hung.wait(), f"nothing was written: {victim.log()}"
        victim.ask_to_leave()
        if not victim.wait(_TO_LEAVE + 2):
            victim.show_stack()
            raise AssertionError(f"the lander waits for a store that hangs: {victim.log()}")
    hung.lift()
    this.lander()


def topics_recreated(this: Round) -> None:
    """The topics are deleted and created again under running landers; both lives land."""
    this.lander()
    with this.producing(1.0):
        pass
    this.until_landed()
    this.land_clean()
    if this.chance.random() < 0.5:
        for process in this._landers:
            process.kill()
    this.new_topics()
    with this.producing(1.0):
        this.lander()


def disk_full(this: Round) -> None:
    """The disk of the lake is full for seconds."""
    this.on_small_disk()
    assert this.disk is not None
    this.lander()
    with this.producing(2.0):
        this.nap(0, 0.8)
        this.disk.fill()
        this.nap(1, 2)
        this.disk.free()


def files_cannot_grow(this: Round) -> None:
    """The lander's process may write no file longer than a few hundred bytes for seconds."""
    this.on_disk()
    process = this.lander()
    with this.producing(2.0):
        this.nap(0, 0.8)
        without_room(process.pid, this.chance.choice([0, 100, 1500]))
        this.nap(1, 2)
        unlimited(process.pid)


def two_from_the_start(this: Round) -> None:
    """Two landers land every partition from the start; perhaps one dies."""
    if this.chance.random() < 0.3:
        this.on_disk()
    pair = [this.lander(assignment="all"), this.lander(assignment="all")]
    with this.producing(2.0):
        this.nap(0.5, 1.5)
        if this.chance.random() < 0.5:
            this.chance.choice(pair).kill()


def replicas_come_and_go(this: Round) -> None:
    """Replicas of one group are added and leave in order or die, while messages come."""
    replicas = [this.lander(assignment="group")]
    with this.producing(5.0):
        for _ in range(4):
            this.nap(0.3, 1.2)
            if len(replicas) < 2 or this.chance.random() < 0.5:
                replicas.append(this.lander(assignment="group"))
                continue
            gone = replicas.pop(this.chance.randrange(len(replicas)))
            if this.chance.random() < 0.7:
                this.leave(gone)
            else:
                gone.kill()


KINDS: dict[str, Callable[[Round], None]] = {
    "dies_before_write": _dies_at("before_write"),
    "dies_after_commit": _dies_at("after_commit"),
    "dies_during_compaction": dies_during_compaction,
    "dies_at_any_time": dies_at_any_time,
    "dies_after_write": dies_with_commit_under_way,
    "commit_arrives_after_its_lander_died": commit_arrives_after_its_lander_died,
    "paused_before_write": _paused_at("before_write"),
    "paused_with_commit_under_way": paused_with_commit_under_way,
    "paused_after_commit": _paused_at("after_commit"),
    "paused_again_and_again": paused_again_and_again,
    "broker_stops": broker_stops,
    "broker_dies": broker_dies,
    "broker_freezes": broker_freezes,
    "broker_freezes_beyond_the_session": broker_freezes_beyond_the_session,
    "answers_are_lost_to_two_with_small_commits": answers_are_lost_to_two_with_small_commits,
    "store_answers_503": _store(Action.UNAVAILABLE, share=0.5),
    "store_is_slow": _store(Action.DELAY, seconds=0.4),
    "store_cuts_connections": _store(Action.CUT, share=0.4),
    "store_hangs": _store(Action.HANG, share=0.3),
    "answers_to_commits_are_lost": _store(Action.LOSE_ANSWER, path=COMMIT, method="PUT", share=0.5),
    "leaves_while_store_hangs": leaves_while_store_hangs,
    "topics_recreated": topics_recreated,
    "disk_full": disk_full,
    "files_cannot_grow": files_cannot_grow,
    "two_from_the_start": two_from_the_start,
    "replicas_come_and_go": replicas_come_and_go,
    "compacts_while_landing": compacts_while_landing,
}


def kind_of(seed: int) -> str:
    """Return the kind of fault that the round of a seed has: so many rounds in a row have every kind."""
    return list(KINDS)[seed % len(KINDS)]
