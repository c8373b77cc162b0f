"""How to reach a Kafka cluster, and what it knows about its topics. No secret of a connection is ever printed."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec
from pydantic import SecretStr

from ml_assets.errors import StateError
from ml_assets.landing.kafka_token import token_source

SecurityProtocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
SaslMechanism = Literal["SCRAM-SHA-256", "SCRAM-SHA-512", "PLAIN", "OAUTHBEARER"]

TIMEOUT = 10.0
_RECONNECT_MS = 1_000  # at most, of librdkafka's 10 s: a broker that is back is noticed at once
_NO_ANSWER = (KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._ALL_BROKERS_DOWN)
_NOT_THERE = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.TOPIC_EXCEPTION)


class KafkaUnreachableError(StateError):
    """The cluster does not answer, or does not let us in."""


@dataclass(frozen=True, slots=True)
class KafkaConnection:
    """A cluster and how to log on to it. `ca_file` holds the certificates to trust; empty means the system's.

    `token` is where OAUTHBEARER has its token from: `aws`, or a file; see `ml_assets.landing.kafka_token`.
    """

    bootstrap: str
    security_protocol: SecurityProtocol = "PLAINTEXT"
    sasl_mechanism: SaslMechanism = "SCRAM-SHA-512"
    username: str = ""
    password: SecretStr = field(default=SecretStr(""))
    ca_file: str = ""
    token: str = ""

    def config(self, **more: Any) -> dict[str, Any]:
        """Return the configuration of a client, with the password in clear: give it to the client only.

        Raises:
            InputError, StateError: it is to have a token, and there is none.
        """
        found: dict[str, Any] = {
            "bootstrap.servers": self.bootstrap,
            "security.protocol": self.security_protocol,
            "reconnect.backoff.max.ms": _RECONNECT_MS,
        }
        if self.security_protocol.startswith("SASL"):
            found["sasl.mechanism"] = self.sasl_mechanism
            if self.sasl_mechanism == "OAUTHBEARER":
                found["oauth_cb"] = source = token_source(self.token)
                source("")  # says what is wrong; a client without a token waits ten seconds and does not
            else:
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
    """A topic as it is now. The `epoch` is the cluster's id of it: a topic that was created again has another one."""

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
    """Questions to a cluster.

    A client that gets no answer is given up; the next question has a new one. A broker that starts or stops can answer
    that the cluster has no brokers: the client then forgets every address and stays away for ever (librdkafka issue
    5301, seen with 2.16).
    """

    def __init__(self, connection: KafkaConnection) -> None:
        self._connection = connection
        self._connect()

    def _connect(self) -> None:
        self._complaints = Complaints()
        self._client = AdminClient(self._connection.config(error_cb=self._complaints, log_level=0))

    def topics(self, names: Iterable[str]) -> dict[str, Topic]:
        """Return those of the topics that exist, as far as we may see them.

        Raises:
            KafkaUnreachableError: the cluster does not answer in time, or refuses us; the message says which.
        """
        asked = list(names)
        if not asked:
            return {}
        found = {}
        for name, future in self._client.describe_topics(TopicCollection(asked), request_timeout=TIMEOUT).items():
            try:
                topic = future.result()
            except KafkaException as error:
                if _code(error) in _NOT_THERE:
                    continue
                raise self._unreachable(error) from error
            found[name] = Topic(name, str(topic.topic_id), tuple(sorted(p.id for p in topic.partitions)))
        return found

    def epoch(self, name: str) -> str | None:
        """Return the epoch of a topic, or None if it does not exist.

        Raises:
            KafkaUnreachableError: the cluster does not answer in time, or refuses us.
        """
        topic = self.topics([name]).get(name)
        return None if topic is None else topic.epoch

    def low(self, name: str, partition: int) -> int:
        """Return the first offset of a partition that the cluster still has."""
        return self._offset(name, partition, OffsetSpec.earliest())  # type: ignore[no-untyped-call]

    def high(self, name: str, partition: int) -> int:
        """Return the offset that the next message of a partition will get."""
        return self._offset(name, partition, OffsetSpec.latest())  # type: ignore[no-untyped-call]

    def starts(self, partitions: Iterable[tuple[str, int]]) -> dict[tuple[str, int], int]:
        """Return the first offset of each partition that the cluster still has.

        Raises:
            KafkaUnreachableError: the cluster does not answer in time.
        """
        return self._offsets(partitions, OffsetSpec.earliest(), IsolationLevel.READ_UNCOMMITTED)  # type: ignore[no-untyped-call]

    def ends(self, partitions: Iterable[tuple[str, int]]) -> dict[tuple[str, int], int]:
        """Return the offset behind the last message of each partition that a reader may have by now.

        Raises:
            KafkaUnreachableError: the cluster does not answer in time.
        """
        return self._offsets(partitions, OffsetSpec.latest(), IsolationLevel.READ_COMMITTED)  # type: ignore[no-untyped-call]

    def readers(self, group: str) -> dict[str, set[tuple[str, int]]]:
        """Return the partitions that each member of a consumer group has by the word of the group.

        Raises:
            KafkaUnreachableError: the cluster does not answer in time.
        """
        try:
            described = self._client.describe_consumer_groups([group], request_timeout=TIMEOUT)[group].result()
        except KafkaException as error:
            if _code(error) == KafkaError.GROUP_ID_NOT_FOUND:
                return {}
            raise self._unreachable(error) from error
        return {
            member.member_id: {(at.topic, at.partition) for at in member.assignment.topic_partitions}
            for member in described.members
        }

    def _offset(self, name: str, partition: int, which: OffsetSpec) -> int:
        return self._offsets([(name, partition)], which, IsolationLevel.READ_UNCOMMITTED)[name, partition]

    def _offsets(
        self, partitions: Iterable[tuple[str, int]], which: OffsetSpec, isolation: IsolationLevel
    ) -> dict[tuple[str, int], int]:
        asked = {TopicPartition(name, partition): which for name, partition in partitions}
        if not asked:
            return {}
        try:
            answers = self._client.list_offsets(asked, isolation_level=isolation, request_timeout=TIMEOUT)
            return {(at.topic, at.partition): int(future.result().offset) for at, future in answers.items()}
        except KafkaException as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: KafkaException) -> KafkaUnreachableError:
        self._client.poll(0)  # lets the client tell its complaint
        reason = str(self._complaints) or str(error.args[0])
        if _code(error) in _NO_ANSWER:
            self._connect()
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
