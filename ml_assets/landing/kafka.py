"""How to reach a Kafka cluster, and what it says of its topics. No secret of a connection is ever printed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec
from pydantic import SecretStr

SecurityProtocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
SaslMechanism = Literal["SCRAM-SHA-256", "SCRAM-SHA-512", "PLAIN"]

TIMEOUT = 10.0
_LOG = logging.getLogger(__name__)


class KafkaUnreachableError(RuntimeError):
    """The cluster does not answer, or does not let us in."""


@dataclass(frozen=True, slots=True)
class KafkaConnection:
    """A cluster and how to log on to it. `ca_file` holds the certificates to trust; empty means the system's."""

    bootstrap: str
    security_protocol: SecurityProtocol = "PLAINTEXT"
    sasl_mechanism: SaslMechanism = "SCRAM-SHA-512"
    username: str = ""
    password: SecretStr = field(default=SecretStr(""))
    ca_file: str = ""

    def config(self, **more: Any) -> dict[str, Any]:
        """Return the configuration of a client, with the password in clear: give it to the client only."""
        found: dict[str, Any] = {"bootstrap.servers": self.bootstrap, "security.protocol": self.security_protocol}
        if self.security_protocol.startswith("SASL"):
            found["sasl.mechanism"] = self.sasl_mechanism
            found["sasl.username"] = self.username
            found["sasl.password"] = self.password.get_secret_value()
        if self.security_protocol.endswith("SSL") and self.ca_file:
            found["ssl.ca.location"] = self.ca_file
        return {**found, **{_property(name): value for name, value in more.items()}}

    def admin(self) -> Cluster:
        """Return a client that asks the cluster about its topics."""
        return Cluster(self)


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as it is now. The `epoch` is the cluster's id of it: a topic made anew has another one."""

    name: str
    epoch: str
    partitions: tuple[int, ...]


class Complaints:
    """The last thing that a client said was wrong, and how often: librdkafka tells it beside the call that fails."""

    def __init__(self) -> None:
        self.number = 0
        self._last: KafkaError | None = None
        self._lock = threading.Lock()

    def __call__(self, error: KafkaError) -> None:
        """Take an error from the client's `error_cb`."""
        with self._lock:
            self.number += 1
            # "all brokers down" only repeats what the error before it explained
            if self._last is None or error.code() != KafkaError._ALL_BROKERS_DOWN:
                self._last = error

    def __str__(self) -> str:
        return "" if self._last is None else str(self._last.str())


class Cluster:
    """Questions to a cluster."""

    def __init__(self, connection: KafkaConnection) -> None:
        self._connection = connection
        self._complaints = Complaints()
        self._client = AdminClient(connection.config(error_cb=self._complaints, log_level=0))

    def topics(self, names: Iterable[str]) -> dict[str, Topic]:
        """Return those of the topics that exist.

        Raises:
            KafkaUnreachableError: the cluster does not answer in time, or refuses us; the message says which.
        """
        known = self._ask(lambda: self._client.list_topics(timeout=TIMEOUT).topics)
        present = [name for name in names if name in known and known[name].error is None]
        if not present:
            return {}
        described = self._ask(lambda: self._client.describe_topics(TopicCollection(present), request_timeout=TIMEOUT))
        found = {}
        for name in present:
            try:
                topic = described[name].result()
            except KafkaException as error:
                if _code(error) == KafkaError.UNKNOWN_TOPIC_OR_PART:
                    continue  # deleted meanwhile
                raise self._unreachable(error) from error
            found[name] = Topic(name, str(topic.topic_id), tuple(sorted(p.id for p in topic.partitions)))
        return found

    def epoch(self, name: str) -> str | None:
        """Return the epoch of a topic, or None if it does not exist.

        Raises:
            KafkaUnreachableError: the cluster does not answer in time, or refuses us.
        """
        future = self._ask(lambda: self._client.describe_topics(TopicCollection([name]), request_timeout=TIMEOUT))[name]
        try:
            return str(future.result().topic_id)
        except KafkaException as error:
            if _code(error) == KafkaError.UNKNOWN_TOPIC_OR_PART:
                return None
            raise self._unreachable(error) from error

    def low(self, name: str, partition: int) -> int:
        """Return the first offset of a partition that the cluster still has."""
        return self._offset(name, partition, OffsetSpec.earliest())  # type: ignore[no-untyped-call]

    def high(self, name: str, partition: int) -> int:
        """Return the offset that the next message of a partition will get."""
        return self._offset(name, partition, OffsetSpec.latest())  # type: ignore[no-untyped-call]

    def _offset(self, name: str, partition: int, which: OffsetSpec) -> int:
        asked = TopicPartition(name, partition)
        try:
            future = self._client.list_offsets({asked: which}, request_timeout=TIMEOUT)[asked]
            return int(future.result().offset)
        except KafkaException as error:
            raise self._unreachable(error) from error

    def _ask(self, question: Callable[[], Any]) -> Any:
        try:
            return question()
        except KafkaException as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: KafkaException) -> KafkaUnreachableError:
        self._client.poll(0)  # lets the client tell its complaint
        reason = str(self._complaints) or str(error.args[0])
        where = f"{self._connection.bootstrap} ({self._connection.security_protocol}"
        who = f", user {self._connection.username}" if self._connection.username else ""
        return KafkaUnreachableError(
            f"Kafka at {where}{who}) cannot be used: {reason}. Look at ML_ASSETS_KAFKA_BOOTSTRAP and the other "
            "ML_ASSETS_KAFKA_... settings, and whether the brokers run"
        )


def app_id(topic: str, epoch: str, partition: int) -> str:
    """Return the Delta application that owns a partition of one life of a topic."""
    return f"kafka:{topic}:{epoch}:{partition}"


def by_app(topic: str, epoch: str, positions: Mapping[int, int]) -> dict[str, int]:
    """Return positions by application instead of by partition."""
    return {app_id(topic, epoch, partition): position for partition, position in positions.items()}


def _property(name: str) -> str:
    """Return librdkafka's name of a property; those of Python callbacks keep their underscore."""
    return name if name.endswith("_cb") else "log_level" if name == "log_level" else name.replace("_", ".")


def _code(error: KafkaException) -> int:
    return int(error.args[0].code())
