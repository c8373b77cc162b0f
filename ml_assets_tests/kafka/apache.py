"""Apache Kafka from Maven Central: one node in KRaft mode, with a plain listener and one that demands TLS and a login.

Who logs in has a password (SCRAM), or a token (OAUTHBEARER) that the node checks by the keys of its issuer.

python -m ml_assets_tests.kafka.apache     fetches the jars into the cache, and says where they are
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from joserfc import jwt
from joserfc.jwk import ECKey
from pydantic import SecretStr

from ml_assets.landing.kafka import KafkaConnection
from ml_assets_tests.kafka.certificates import Certificates, issue
from ml_assets_tests.maven import fetch_jars

_HERE = Path(__file__).parent
_POM = _HERE / "pom.xml"
_START_SECONDS = 60.0
_STOP_SECONDS = 30.0
_OLDEST_JAVA = 17
# Quick to start and small: a node of the tests holds megabytes, for minutes.
_JVM = [
    "-Xms128m",
    "-Xmx384m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Xshare:auto",
    "-Djava.awt.headless=true",
]


class MissingToolError(RuntimeError):
    """Java or Maven is not installed."""


def missing_tools() -> str:
    """Return what this machine lacks to run Apache Kafka, and what to do; empty if nothing."""
    if shutil.which("java") is None:
        return f"Apache Kafka needs `java`, version {_OLDEST_JAVA} or newer, on the PATH: install a JRE"
    shown = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "(\d+)', shown)
    if found is None or int(found[1]) < _OLDEST_JAVA:
        return f"Apache Kafka needs Java {_OLDEST_JAVA} or newer; `java -version` says: {shown.strip()[:200]}"
    if not _cached().is_dir() and shutil.which("mvn") is None:
        return "the jars of Apache Kafka are fetched by `mvn`, which is not on the PATH: install Maven"
    return ""


def kafka_version() -> str:
    """Return the version of Apache Kafka that the pom names."""
    found = re.search(r"<kafka.version>([^<]+)<", _POM.read_text(encoding="utf-8"))
    assert found is not None, f"{_POM} names no kafka.version"
    return found[1]


def jars() -> Path:
    """Return the folder of the jars; fetched into the user's cache the first time.

    Raises:
        MissingToolError: Java or Maven is not installed.
        RuntimeError: Maven fails; with what it said.
    """
    if lacking := missing_tools():
        raise MissingToolError(lacking)
    return fetch_jars(f"Apache Kafka {kafka_version()}", _POM, _cached())


class ApacheKafka:
    """One node of Apache Kafka on this machine. Its ports and its data stay the same over stop and start.

    `bootstrap` is the plain listener. `secure_bootstrap` takes only TLS, with a certificate of `ca_file`, and
    SCRAM-SHA-512 with `username` and `password`, or OAUTHBEARER with a token of `token`.
    """

    username = "lander"
    issuer, audience = "https://login.example", "kafka"

    def __init__(self, folder: Path) -> None:
        """Prepare a node below a folder; it does not run yet."""
        self._folder = folder
        self._jars = jars()
        self.log_file = folder / "kafka.log"
        self._config = folder / "server.properties"
        self._process: subprocess.Popen[bytes] | None = None
        self._certificates = issue(folder / "certificates")
        self.password = f"pw-{uuid.uuid4().hex}"
        self._signer = ECKey.generate_key("P-256", {"kid": "test", "use": "sig", "alg": "ES256"}, private=True)
        self._keys = folder / "jwks.json"
        self._keys.write_text(json.dumps({"keys": [self._signer.as_dict(private=False)]}))
        plain, secure, controller = _free_ports(3)
        self.bootstrap = f"127.0.0.1:{plain}"
        self.secure_bootstrap = f"127.0.0.1:{secure}"
        settings = _settings(folder / "data", self._certificates, plain, secure, controller) | {
            "sasl.oauthbearer.jwks.endpoint.url": self._keys.as_uri(),
            "sasl.oauthbearer.expected.issuer": self.issuer,
            "sasl.oauthbearer.expected.audience": self.audience,
        }
        self._config.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        self._format()

    @property
    def plain(self) -> KafkaConnection:
        """How to reach the plain listener."""
        return KafkaConnection(self.bootstrap)

    @property
    def secure(self) -> KafkaConnection:
        """How to reach the listener that demands TLS and a password."""
        return KafkaConnection(
            self.secure_bootstrap,
            security_protocol="SASL_SSL",
            sasl_mechanism="SCRAM-SHA-512",
            username=self.username,
            password=SecretStr(self.password),
            ca_file=str(self.ca_file),
        )

    def token(self, signer: ECKey | None = None) -> str:
        """Return a token for this node that ends in five minutes, signed by the key that it knows or by another."""
        now = int(time.time())
        claims = {"sub": self.username, "iss": self.issuer, "aud": self.audience, "iat": now, "exp": now + 300}
        return jwt.encode({"alg": "ES256", "kid": "test"}, claims, signer or self._signer)

    @property
    def ca_file(self) -> Path:
        """The authority that signed the certificate of the secure listener."""
        return self._certificates.ca_file

    @property
    def pid(self) -> int:
        """Process id of the running node.

        Raises:
            RuntimeError: it does not run.
        """
        if self._process is None:
            raise RuntimeError("Apache Kafka does not run: start() it first")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has been started and not ended since."""
        return self._process is not None

    def start(self) -> None:
        """Start the node on the data that it has, and wait until it serves.

        Raises:
            RuntimeError: it does not answer in time; with the end of its log.
        """
        assert self._process is None, "Apache Kafka runs already"
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                self._java("kafka.Kafka", str(self._config)), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        until = time.monotonic() + _START_SECONDS
        while not _serves(self.bootstrap):
            if self._process.poll() is not None or time.monotonic() > until:
                self.kill()
                raise RuntimeError(f"Apache Kafka does not answer on {self.bootstrap}: {self._log_end()}")

    def stop(self) -> None:
        """Stop the node as an operator would (SIGTERM) and wait until it has ended."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the node as a crash would (SIGKILL); what it has acknowledged is in the files."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Freeze the node (SIGSTOP): connections stay open and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused node go on (SIGCONT)."""
        os.kill(self.pid, signal.SIGCONT)

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(how)
        self._process.send_signal(signal.SIGCONT)  # a paused process does not see SIGTERM
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _format(self) -> None:
        # An id that starts with "-" would be taken for an option; the first byte decides.
        cluster = urlsafe_b64encode(b"\0" + uuid.uuid4().bytes[1:]).decode().rstrip("=")
        scram = f"SCRAM-SHA-512=[name={self.username},password={self.password}]"
        command = self._java(
            "kafka.tools.StorageTool", "format", "--cluster-id", cluster, "--config", str(self._config),
            "--add-scram", scram,
        )  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        if done.returncode:
            raise RuntimeError(
                f"the storage of Apache Kafka cannot be formatted: {(done.stdout + done.stderr)[-3000:]}"
            )

    def _java(self, *command: str) -> list[str]:
        log = f"-Dlog4j2.configurationFile={_HERE / 'log4j2.properties'}"
        keys = f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={self._keys.as_uri()}"
        return ["java", *_JVM, log, keys, "-cp", f"{self._jars}/*", *command]

    def _log_end(self) -> str:
        return self.log_file.read_text(encoding="utf-8", errors="replace")[-3000:]


@contextlib.contextmanager
def apache_kafka(folder: Path) -> Iterator[ApacheKafka]:
    """Run a node below a folder for the length of a block."""
    node = ApacheKafka(folder)
    node.start()
    try:
        yield node
    finally:
        node.stop()


def _settings(data: Path, certificates: Certificates, plain: int, secure: int, controller: int) -> dict[str, Any]:
    """Return what server.properties says of one node that is broker and controller."""
    oauth = "org.apache.kafka.common.security.oauthbearer.OAuthBearer"
    return {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        "listeners": f"PLAINTEXT://127.0.0.1:{plain},SASL_SSL://127.0.0.1:{secure},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{plain},SASL_SSL://127.0.0.1:{secure}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "sasl.enabled.mechanisms": "SCRAM-SHA-512,OAUTHBEARER",
        "listener.name.sasl_ssl.oauthbearer.sasl.jaas.config": f"{oauth}LoginModule required;",
        "listener.name.sasl_ssl.oauthbearer.sasl.server.callback.handler.class": f"{oauth}ValidatorCallbackHandler",
        "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": (
            "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        ),
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": certificates.server_file,
        "log.dirs": data,
        "auto.create.topics.enable": "false",
        "message.max.bytes": 8 * 1024 * 1024,
        # Tests send old messages on purpose: nothing expires unless a topic says so.
        "log.retention.ms": -1,
        # One node: nothing is replicated, and internal topics are small.
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 1,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "transaction.state.log.num.partitions": 1,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        "share.coordinator.state.topic.num.partitions": 1,
        # Faults within seconds: sessions end soon, groups form at once, old segments are cleaned at once.
        "group.min.session.timeout.ms": 500,
        "group.initial.rebalance.delay.ms": 0,
        "log.cleaner.backoff.ms": 200,
        "log.cleaner.dedupe.buffer.size": 2 * 1024 * 1024,
        "log.retention.check.interval.ms": 500,
        "log.segment.delete.delay.ms": 100,
        "broker.session.timeout.ms": 3000,
        "broker.heartbeat.interval.ms": 500,
    }


def _cached() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    content = hashlib.sha256(_POM.read_bytes()).hexdigest()[:8]
    return cache / "ml_assets" / f"kafka-{kafka_version()}-{content}"


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def _serves(bootstrap: str) -> bool:
    """Return whether a broker is registered, not only listening; waits up to a second."""
    client = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0, "socket.timeout.ms": 1000})
    try:
        return bool(client.list_topics(timeout=1).brokers)
    except KafkaException:
        time.sleep(0.1)
        return False


if __name__ == "__main__":
    print(f"Apache Kafka {kafka_version()}: {jars()}")  # noqa: T201
