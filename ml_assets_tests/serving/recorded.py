"""Record answers until killed: `python -m ml_assets_tests.serving.recorded <bootstrap> <counts> <how many>`."""

import sys
import time
from pathlib import Path

from ml_assets.answers import SERVED_SCORES
from ml_assets.landing.kafka import KafkaConnection
from ml_assets.serving.recorder import Recorder
from ml_assets_tests.serving.answers import answer


def main() -> None:
    """Print the id of each answer once it was accepted."""
    bootstrap, counts, number = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    recorder = Recorder(KafkaConnection(bootstrap), counts=counts, make_topics=True, idempotent=False)
    sys.stdout.write(f"lost {recorder.start()}\n")
    sys.stdout.flush()
    for n in range(number):
        event = answer(f"killed-{n}")
        assert recorder.record(SERVED_SCORES.topic, event.entity_id, event)
        sys.stdout.write(f"{event.event_id}\n")
        sys.stdout.flush()
        time.sleep(0.005)
    time.sleep(60)


if __name__ == "__main__":
    main()
