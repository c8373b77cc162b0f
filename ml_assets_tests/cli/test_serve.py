"""What `ml-assets serve` opens, and when."""

from functools import cached_property

import pytest
from sqlalchemy import Engine, create_engine

from ml_assets.cli.serve import engine_of
from ml_assets.platform import Platform
from ml_assets.settings import Settings


class Watched(Platform):
    """A platform that notes when its database is opened."""

    opened = 0

    @cached_property
    def engine(self) -> Engine:
        self.opened += 1
        return create_engine("postgresql+psycopg://nobody@127.0.0.1:1/none")


@pytest.mark.parametrize(("url", "at_once"), [("", 1), ("postgresql://nobody@127.0.0.1:1", 0)])
def test_only_the_embedded_database_is_opened_before_the_service_starts(tmp_path, url, at_once):
    """Guards a first start: the embedded server was set up by a thread that watches, and by others at the same time."""
    platform = Watched(Settings(home=tmp_path, postgres_url=url))
    engine = engine_of(platform)
    assert platform.opened == at_once
    assert engine() is engine()
    assert platform.opened == 1
