"""What the tests of the service share."""

from collections.abc import Iterator
from uuid import uuid4

import pyarrow as pa
import pytest

from ml_assets.database.connect import connect
from ml_assets.local.embedded.postgres import EmbeddedPostgres
from ml_assets.local.simulation.market import Market
from ml_assets.serving.app import build_app
from ml_assets.serving.around import ChangesTold, ShadowTold
from ml_assets.serving.scoring import Scoring
from ml_assets_tests.serving.bench import Bench, Kept, KeptEvents, listening, wait
from ml_assets_tests.serving.filled import NAME, SMALL, files_of, fill, last_afternoon, open_ledger


@pytest.fixture(scope="module")
def bench(
    market: Market, events: dict[str, pa.Table], market_references: dict[str, pa.Table],
    postgres_server: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Bench]:  # fmt: skip
    home = tmp_path_factory.mktemp("serving")
    lake = fill(home, market, events, market_references)
    database = f"serving_{uuid4().hex[:8]}"
    postgres_server.create_databases(database)
    url = postgres_server.url(database)
    open_ledger(url)
    engine = connect(url)
    at = last_afternoon(market)
    scoring = Scoring(
        lake, lambda: engine, [SMALL], lambda run, _: files_of(home, run),
        clock=lambda: at, every=0.1, tell=ChangesTold(changes := KeptEvents(), least_change=0.01),
        tell_shadow=ShadowTold(shadow := KeptEvents()),
    )  # fmt: skip
    recorder = Kept()
    with listening(build_app(scoring, recorder=recorder, concurrency=2)) as port:
        made = Bench(port, scoring, SMALL, home / "models", url, recorder, changes, shadow, at, events)
        assert made.ask("/health/ready")[0] == 503  # no champion yet
        assert made.ask(f"/v1/{NAME}/score", {"entity_ids": ["x"]})[0] == 503
        made.promote(1, "registered")
        made.promote(1)
        wait(lambda: made.ask("/health/ready")[0] == 200)
        yield made
    engine.dispose()
    postgres_server.drop_database(database)
