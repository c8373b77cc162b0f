"""The walk of the README, from two files to a work-list, as it stands on the page, on real servers."""

import csv
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ml_assets.local.embedded.broker import stop_broker
from ml_assets.local.embedded.postgres import stop_server

pytestmark = [pytest.mark.end_to_end, pytest.mark.long]

README = Path(__file__).parents[2] / "README.md"
_BLOCK = re.compile(r"^```bash (?P<name>[a-z]+)\n(?P<script>.*?)^```$", re.MULTILINE | re.DOTALL)


def write_shop(folder: Path) -> None:
    """Write the files of a mail-order shop: heavy parcels of one carrier are often late."""
    chance = random.Random(5)
    day, number, delivered = datetime(2026, 1, 5, 8, tzinfo=UTC), 0, []
    with (folder / "orders.csv").open("w", newline="") as file:
        orders = csv.writer(file)
        orders.writerow(["order_no", "happened_at", "Carrier", "Region", "Weight kg", "Price"])
        while day < datetime(2026, 3, 28, tzinfo=UTC):
            for minute in range(60 if day.weekday() < 5 else 0):
                number += 1
                carrier, weight = chance.choice(["Blue", "Green", "Red"]), round(chance.expovariate(0.2), 2)
                at = day + timedelta(minutes=7 * minute)
                region = chance.choice(["north", "south", "east"])
                orders.writerow([f"A{number:06}", at.isoformat(), carrier, region, weight, round(3 * weight + 5, 2)])
                late = chance.random() < {"Blue": 0.02, "Green": 0.1, "Red": 0.5}[carrier] + 0.2 * (weight > 10)
                delivered.append((at + timedelta(days=5 if late else 1, hours=3), f"A{number:06}"))
            day += timedelta(days=1)
    with (folder / "deliveries.csv").open("w", newline="") as file:
        deliveries = csv.writer(file)
        deliveries.writerow(["order_no", "happened_at", "Depot"])
        deliveries.writerows([order, at.isoformat(), chance.choice("KLM")] for at, order in sorted(delivered))


@pytest.fixture
def site(tmp_path):
    """A folder with the shop's files, and a home that the server's own user can reach."""
    with opened_site(tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    """The site after the walk, and what the walk printed."""
    with opened_site(tmp_path_factory.mktemp("walk")) as made:
        script = "\n".join(block["script"] for block in _BLOCK.finditer(README.read_text(encoding="utf-8")))
        yield made, run(made, script)


@contextmanager
def opened_site(folder: Path) -> Iterator[tuple[Path, Path]]:
    write_shop(folder)
    home = Path(tempfile.mkdtemp(prefix="ml_assets_"))
    yield folder, home
    stop_broker(home)
    stop_server(home)
    shutil.rmtree(home, ignore_errors=True)


def run(site: tuple[Path, Path], script: str, **variables: str) -> subprocess.CompletedProcess[str]:
    folder, home = site
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "ML_ASSETS_HOME": str(home), "COLUMNS": "160", **variables}
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=folder, env=environment, text=True, timeout=1200, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def test_the_page_has_the_walk():
    blocks = [block["name"] for block in _BLOCK.finditer(README.read_text(encoding="utf-8"))]
    assert blocks == ["draft", "events", "model"]


def test_a_draft_is_complete_and_says_what_to_think_about(site):
    """Guards a draft that fails its own check; and one whose test, package or columns only work for our own files."""
    blocks = {block["name"]: block["script"] for block in _BLOCK.finditer(README.read_text(encoding="utf-8"))}
    done = run(site, f"{blocks['draft']}\npython -m pytest -q -p no:cacheprovider my_cases")
    assert done.returncode == 0, done.stdout
    assert "late_parcels: complete" in done.stdout
    assert "my_cases/late_parcels/label.sql:2: is that the outcome?" in done.stdout
    assert "1 passed" in done.stdout
    again = run(site, blocks["draft"])
    assert again.returncode == 1
    assert "my_cases/late_parcels is there already" in again.stdout
    (site[0] / "my_cases" / "late_parcels" / "label.sql").unlink()
    lacking = run(site, "ml-assets check", ML_ASSETS_USECASE_PACKAGES="my_cases,ml_assets.usecases")
    assert lacking.returncode == 1
    assert "wrong  my_cases/late_parcels/label.sql: the file is missing" in lacking.stdout
    assert "cns_fails: complete" in lacking.stdout


def test_the_walk_ends_with_a_work_list(walked):
    _, done = walked
    assert done.returncode == 0, done.stdout
    assert "3,600 messages of orders.csv are on topic late_parcels_orders; 0 lines are not" in done.stdout
    listed = done.stdout[done.stdout.index("work-list for 2026-03-30") :]
    assert listed.count("Red") > listed.count("Blue"), listed


def test_two_retrainings_of_one_date_at_once_go_one_after_the_other(walked):
    """Guards a second retraining that ends with a message of the table format, or mixes with the first."""
    site, _ = walked
    retrain = re.search(r"^ml-assets retrain [^\n]+$", README.read_text(encoding="utf-8"), re.MULTILINE)[0]
    both = f"{retrain} > one.txt 2>&1 & first=$!\n{retrain} > two.txt 2>&1 & second=$!\nwait $first\nwait $second"
    done = run(site, both, ML_ASSETS_USECASE_PACKAGES="my_cases,ml_assets.usecases")
    said = [(site[0] / name).read_text() for name in ("one.txt", "two.txt")]
    assert done.returncode == 0, (done.stdout[-2000:], said)
    assert sum("another command runs late_parcels" in text for text in said) == 1, said
    assert all("The gate says" in text for text in said), said
    assert not any("Traceback" in text or "error:" in text for text in said), said
    # The walk made version 1. The first trains and registers; the second trains anew, and compares with what it made.
    assert sorted(re.findall(r"version (\d+) \(", text)[0] for text in said) == ["2", "3"], said
