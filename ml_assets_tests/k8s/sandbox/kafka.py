"""A Kafka broker in a pod, in memory: `python -m ml_assets_tests.k8s.sandbox.kafka <advertised host:port>`.

It makes the topics of all use cases, which a bank's Kafka team does elsewhere: a lander without topics is not ready.
"""

import signal
import subprocess
import sys
import time

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from ml_assets.landing.kafka import KafkaConnection
from ml_assets.landing.produce import ensure_topics
from ml_assets.local.embedded.broker import _program
from ml_assets.settings import Settings
from ml_assets.usecases import discover


def main(advertised: str) -> int:
    """Run the broker until terminated."""
    address = f"tcp://0.0.0.0:{advertised.rpartition(':')[2]}"
    broker = subprocess.Popen(
        [str(_program()), "broker", "--listener-url", address, "--advertised-listener-url", f"tcp://{advertised}",
         "--storage-engine", "memory://tansu/"],
    )  # fmt: skip
    signal.signal(signal.SIGTERM, lambda *_: broker.terminate())
    topics = {event.topic for usecase in discover(Settings().usecase_packages) for event in usecase.events}
    client = AdminClient({"bootstrap.servers": advertised, "log_level": 0})
    while broker.poll() is None:
        try:
            client.list_topics(timeout=2)
        except KafkaException:
            time.sleep(0.5)
        else:
            ensure_topics(KafkaConnection(advertised), sorted(topics))
            return broker.wait()
    return broker.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
