"""The service in a process of its own, as `ml-assets serve` runs it, on what `filled.fill` has made.

python -m ml_assets_tests.serving.running <home> <database URL> <bootstrap> <port> <drain seconds>

It is as late as the file `now` in its home says. Its lake is in its home, or where the file `lake.json` there says:
an address and options of a store.

When it has ended it prints how many answers were recorded and dropped.
"""

import json
import logging
import sys
from datetime import datetime
from pathlib import Path

import structlog

from ml_assets.answers import SERVED_SCORES
from ml_assets.database.connect import connect
from ml_assets.lake import Lake
from ml_assets.landing.kafka import KafkaConnection
from ml_assets.serving.app import build_app
from ml_assets.serving.around import AnswerRecorder
from ml_assets.serving.drain import DrainingServer
from ml_assets.serving.recorder import Recorder
from ml_assets.serving.scoring import Scoring
from ml_assets_tests.serving.filled import SMALL, files_of


def main() -> None:
    home, url, bootstrap, port, drain = sys.argv[1:]
    # Into a file: a pipe that nobody reads while the service runs would stop it once it is full.
    structlog.configure(
        processors=[structlog.processors.format_exc_info, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory((Path(home) / "service.log").open("w", buffering=1)),
    )
    engine = connect(url)
    recorder = Recorder(KafkaConnection(bootstrap), make_topics=True, idempotent=False)
    recorder.start()
    elsewhere = Path(home) / "lake.json"
    where, options = json.loads(elsewhere.read_text()) if elsewhere.exists() else (str(Path(home) / "lake"), {})
    scoring = Scoring(
        Lake(where, options), lambda: engine, [SMALL], lambda run, _: files_of(Path(home), run),
        clock=lambda: datetime.fromisoformat((Path(home) / "now").read_text()), every=0.1,
    )  # fmt: skip
    server = DrainingServer(
        build_app(scoring, recorder=AnswerRecorder(recorder)), drain_seconds=float(drain), host="127.0.0.1",
        port=int(port), loop="uvloop", access_log=False, log_level="warning",
    )  # fmt: skip
    server.run()
    left = recorder.close(0.5)
    dropped = sum(
        sample.value
        for metric in recorder.metrics.dropped.collect()
        for sample in metric.samples
        if sample.name.endswith("_total") and sample.labels["topic"] == SERVED_SCORES.topic
    )
    recorded = recorder.metrics.registry.get_sample_value("serving_recorded_total", {"topic": SERVED_SCORES.topic})
    sys.stdout.write(json.dumps({"recorded": recorded, "dropped": dropped + left}) + "\n")


if __name__ == "__main__":
    main()
