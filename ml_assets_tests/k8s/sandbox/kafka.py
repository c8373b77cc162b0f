"""A Kafka broker in a pod, in memory: `python -m ml_assets_tests.k8s.sandbox.kafka <advertised host:port>`."""

import os
import sys

from ml_assets.embedded.broker import _program


def main(advertised: str) -> None:
    """Become the broker."""
    port = advertised.rpartition(":")[2]
    arguments = [
        "broker", "--listener-url", f"tcp://0.0.0.0:{port}", "--advertised-listener-url", f"tcp://{advertised}",
        "--storage-engine", "memory://tansu/",
    ]  # fmt: skip
    program = _program()
    os.execv(program, [str(program), *arguments])


if __name__ == "__main__":
    main(sys.argv[1])
