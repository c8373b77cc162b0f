"""Servers of a rehearsal's own."""

import tempfile
from datetime import date
from pathlib import Path

import pytest

from ml_assets.local.rehearsal.run import own_servers
from ml_assets.settings import Settings

pytestmark = pytest.mark.rehearsal


def test_a_process_has_empty_servers_twice_one_after_the_other():
    """Guards the second part of `make rehearsal-sec`: MLflow asked a new database for tables that it had not made."""
    with tempfile.TemporaryDirectory(prefix="ml_assets_") as home:
        for part in ("one", "other"):
            with own_servers(Settings(home=Path(home)), part) as platform:
                assert platform.registry.candidate_runs("cns_fails", date(2020, 7, 1)) == {}
