"""The events of a demo: produced, landed and accounted for, as a whole or not at all.

A mark below the home says what was begun and whether it is complete. If a demo was interrupted, the next one starts
with empty landing tables and an empty broker: nobody knows what the interrupted one had sent or landed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import msgspec

from ml_assets.errors import InputError, StateError
from ml_assets.lake import Lake, landing_table
from ml_assets.landing.kafka import KafkaConnection
from ml_assets.local.simulation.messages import Message
from ml_assets.settings import Settings
from ml_assets.spec import UseCase

# Opens a progress bar, given a title and a total; yields the function that advances it.
Bar = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]


class Source(Protocol):
    """Input for a use case: a simulated market, or files that are played again."""

    @property
    def topics(self) -> Iterable[str]:
        """The topics of the messages."""
        ...

    @property
    def message_count(self) -> int:
        """How many messages there will be, for a progress bar."""
        ...

    def messages(self) -> Iterator[Message]:
        """Yield the messages in the order in which they became known."""
        ...


class Mark(msgspec.Struct, frozen=True):
    """What a demo has begun to land: `events` names them in words; `landed` is how many, None until all are there."""

    events: str
    landed: int | None = None


def refuse_other_events(settings: Settings, lake: Lake, usecase: UseCase, events: str) -> None:
    """Do nothing if a demo may land these events here, or has done so.

    Raises:
        ValueError: the lake holds other events, from another demo or from `ml-assets land`.
    """
    mark = _read(settings, usecase)
    filled = [event.topic for event in usecase.events if lake.file_names(landing_table(event.topic))]
    if not filled or (mark is not None and mark.events == events):
        return
    if mark is not None and mark.landed is None:
        return  # the demo that was cut has nothing to keep
    held = f"a demo of {mark.events}" if mark else f"events of {', '.join(filled)} that no demo has landed"
    wanted = f"this demo is of {events}"
    way = (
        "`ml-assets demo --fresh` deletes the folder and starts anew; ML_ASSETS_HOME=<another folder> keeps both"
        if lake.root == str(settings.home_path / "lake")
        else "give this demo a lake of its own: ML_ASSETS_LAKE_ROOT=<another folder or prefix>"
    )
    raise InputError(f"the lake {lake.root} holds {held}; {wanted}. {way}")


def land_once(settings: Settings, lake: Lake, usecase: UseCase, source: Source, events: str, bar: Bar) -> bool:
    """Produce the messages and land them, unless that is complete; return whether it was done now.

    Raises:
        ValueError: the lake or the broker holds other events.
        RuntimeError: not all that was sent has landed once; the next call starts anew.
    """
    from ml_assets.landing.lander import Lander
    from ml_assets.landing.produce import ensure_topics, produce

    refuse_other_events(settings, lake, usecase, events)
    mark = _read(settings, usecase)
    # More than the demo's may have landed since; fewer are a table that somebody has taken away.
    if mark is not None and mark.landed is not None and mark.landed <= _landed(lake, usecase, settings.threads):
        return False
    _write(settings, usecase, Mark(events))
    for event in usecase.events:
        lake.empty(landing_table(event.topic))
    kafka = _empty_broker(settings, source.topics)
    ensure_topics(kafka, source.topics)
    with bar("messages produced to Kafka", source.message_count) as advance:
        sent = produce(kafka, source.messages(), progress=advance)
    with bar("messages landed in Delta Lake", sent) as advance:
        Lander(lake, usecase.events, kafka, clock="replay").land_available(advance)
    landed = _landed(lake, usecase, settings.threads)
    if landed != sent:
        raise StateError(
            f"{sent:,} messages were sent and {landed:,} have landed once; start the demo again: it lands them anew"
        )
    _write(settings, usecase, Mark(events, landed))
    return True


def _landed(lake: Lake, usecase: UseCase, threads: int) -> int:
    """Return how many messages are in the landing tables once; -1 if the account of one does not balance."""
    from ml_assets.landing.accounting import account

    parts = [part for event in usecase.events for part in account(lake, event, threads=threads)]
    return sum(part.landed + part.dead_lettered for part in parts) if all(part.is_right for part in parts) else -1


def _empty_broker(settings: Settings, topics: Iterable[str]) -> KafkaConnection:
    """Return a broker without messages of these topics: the embedded broker is started again, empty.

    Raises:
        ValueError: the broker of the settings holds messages of a topic, which are not the demo's to delete.
    """
    from ml_assets.local.embedded.broker import stop_broker
    from ml_assets.local.embedded.environment import kafka_connection

    if not settings.kafka_bootstrap:
        stop_broker(settings.home_path)
        return kafka_connection(settings)
    kafka = kafka_connection(settings)
    cluster = kafka.admin()
    for name, topic in cluster.topics(topics).items():
        ends = cluster.ends((name, partition) for partition in topic.partitions)
        if held := sum(ends.values()):
            raise InputError(
                f"topic {name} on {kafka.bootstrap} holds {held:,} messages already, and the demo would mix its own "
                "with them. Leave ML_ASSETS_KAFKA_BOOTSTRAP empty for the embedded broker, or delete the topic if a "
                "demo made it"
            )
    return kafka


def _file(settings: Settings, usecase: UseCase) -> Path:
    return settings.home_path / "demo" / f"{usecase.name}.json"


def _read(settings: Settings, usecase: UseCase) -> Mark | None:
    try:
        return msgspec.json.decode(_file(settings, usecase).read_bytes(), type=Mark)
    except FileNotFoundError:
        return None


def _write(settings: Settings, usecase: UseCase, mark: Mark) -> None:
    """Write the mark at once: a process that is cut leaves the one before."""
    file = _file(settings, usecase)
    file.parent.mkdir(parents=True, exist_ok=True)
    written = file.with_suffix(".new")
    written.write_bytes(msgspec.json.encode(mark))
    written.replace(file)
