"""Back-up and restore between folders, on a real server; test_operating.py does the whole of it on S3."""

import threading
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pyarrow as pa
import pytest

from ml_assets.backup import Places, backup, backups, restore
from ml_assets.backup.objects import copy_all
from ml_assets.backup.postgres import move_artifacts
from ml_assets.database.promotions import Actor, ModelIdentity, declare_tiers, history, record, writing
from ml_assets.lake import Lake
from ml_assets.local.embedded.postgres import EmbeddedPostgres, client_programs

MONDAY, TUESDAY = date(2026, 1, 5), date(2026, 1, 6)


@pytest.fixture
def places(application_url: str, tmp_path: Path) -> Places:
    """What is backed up: a database with the tables of the application, a lake, artifacts, reference files."""
    made = places_at(application_url, tmp_path / "bank")
    made.lake.replace("features/fails", rows(MONDAY, 1), "day", [MONDAY])
    made.lake.replace("features/fails", rows(TUESDAY, 2), "day", [TUESDAY])
    made.lake.overwrite("reference/calendar", pa.table({"n": [1]}))
    for root, name in ((made.artifacts, "1/run/model.onnx"), (made.reference, "fails/payers/2026.csv")):
        path = Path(root) / name
        path.parent.mkdir(parents=True)
        path.write_text(f"this is {name}")
    promote(application_url, "model-risk said yes")
    return made


@pytest.fixture
def elsewhere(postgres_server: EmbeddedPostgres, tmp_path: Path) -> Any:
    """Empty places to restore into."""
    name = f"restored_{uuid4().hex[:8]}"
    postgres_server.create_databases(name)
    yield places_at(postgres_server.url(name), tmp_path / "elsewhere")
    postgres_server.drop_database(name)


@pytest.fixture
def where(tmp_path: Path) -> str:
    return str(tmp_path / "backups")


def places_at(url: str, root: Path) -> Places:
    missing = url.replace("?host", "_not_there?host")  # as `mlflow_auth` where MLflow asks for no password
    return Places(
        {"ml_assets": url, "mlflow_auth": missing}, Lake(str(root / "lake")), str(root / "artifacts"),
        str(root / "reference"), client_programs(),
    )  # fmt: skip


def rows(day: date, number: int) -> pa.Table:
    return pa.table({"day": pa.array([day], pa.date32()), "n": pa.array([number], pa.int64())})


def promote(url: str, reason: str) -> None:
    declare_tiers(url, {"fails": "low"})
    model = ModelIdentity(1, "run", "1" * 64, "0" * 64)
    with writing(url, "fails") as ledger:
        for action in ("registered", "promoted"):
            record(ledger, "fails", action, model=model, actor=Actor.run("r"), reason=reason)


def content(places: Places) -> dict[str, object]:
    found: dict[str, object] = {
        str(path.relative_to(root)): path.read_text()
        for root in (places.artifacts, places.reference)
        for path in sorted(Path(root).rglob("*"))
        if path.is_file()
    }
    for table in ("features/fails", "reference/calendar"):
        found[table] = sorted(map(repr, places.lake.read(table).to_pylist()))
    return {**found, "ledger": history(places.databases["ml_assets"], "fails")}


def test_what_was_backed_up_is_what_is_restored(places: Places, elsewhere: Places, where: str) -> None:
    """Also what came later is not in it, and older versions of a table can still be read."""
    made = backup(places, where, ["fails"])
    before = content(places)
    places.lake.replace("features/fails", rows(MONDAY, 3), "day", [MONDAY])
    promote(places.databases["ml_assets"], "later")
    assert restore(elsewhere, where) == made
    assert content(elsewhere) == before, "the ledger's times too, though its trigger stamps what is inserted"
    assert elsewhere.lake.version("features/fails") == made.tables["features/fails"]
    assert elsewhere.lake.read("features/fails", version=1).num_rows == 1
    elsewhere.lake.replace("features/fails", rows(MONDAY, 4), "day", [MONDAY])
    assert sorted(elsewhere.lake.read("features/fails")["n"].to_pylist()) == [2, 4], "it is a table that goes on"


def test_the_ledger_is_append_only_after_a_restore(places: Places, elsewhere: Places, where: str) -> None:
    backup(places, where, ["fails"])
    restore(elsewhere, where)
    url = elsewhere.databases["ml_assets"].replace("+psycopg", "")
    with psycopg.connect(url) as connection, pytest.raises(psycopg.errors.IntegrityError, match="append-only"):
        connection.execute("UPDATE promotions SET reason = 'other'")


def test_it_waits_for_a_promotion_that_is_under_way(places: Places, where: str) -> None:
    """Guards a backup in which the registry has a champion that the ledger knows nothing of, or the other way."""
    made = threading.Event()
    worker = threading.Thread(target=lambda: (backup(places, where, ["fails"]), made.set()))
    with writing(places.databases["ml_assets"], "fails"):
        worker.start()
        assert not made.wait(1.0)
    worker.join(60)
    assert made.is_set()


def test_what_housekeeping_removes_meanwhile_is_left_out(
    places: Places, elsewhere: Places, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that only old versions needed may go while a backup runs; one that the version needs may not."""
    places.lake.replace("features/fails", rows(MONDAY, 3), "day", [MONDAY])
    table = places.lake.table("features/fails")
    assert table is not None

    def after(first: Callable[[], object]) -> None:
        monkeypatch.setattr("ml_assets.backup.platform.copy_all", lambda copies: (first(), copy_all(copies))[1])

    def vacuum() -> object:
        return table.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)

    after(vacuum)
    backup(places, where, ["fails"])
    restore(elsewhere, where)
    assert sorted(elsewhere.lake.read("features/fails")["n"].to_pylist()) == [2, 3]
    (needed, *_) = (Path(uri) for uri in table.file_uris())
    after(needed.unlink)
    with pytest.raises(RuntimeError, match="lacks its file"):
        backup(places, where + "-again", ["fails"])
    assert backups(where + "-again") == []


def test_a_backup_that_is_not_complete_is_not_restored(places: Places, elsewhere: Places, where: str) -> None:
    made = backup(places, where, ["fails"])
    shared = sorted(made.files)[0]
    path = Path(where) / "files" / shared
    kept = path.read_bytes()
    path.write_bytes(kept[:-1])
    assert [missing for _, missing in backups(where)] == [[f"files/{shared}"]]
    with pytest.raises(RuntimeError, match=f"is not complete: it lacks files/{shared}"):
        restore(elsewhere, where)
    path.write_bytes(kept)
    dumped = Path(where) / made.name / "postgres" / "ml_assets.dump"
    dumped.write_bytes(dumped.read_bytes()[:-1] + b"?")
    with pytest.raises(RuntimeError, match="its SHA-256 differs"):
        restore(elsewhere, where)


def test_nothing_is_restored_over_what_is_there(places: Places, elsewhere: Places, where: str) -> None:
    backup(places, where, ["fails"])
    before = content(places)
    with pytest.raises(RuntimeError, match="a backup is restored into an empty lake"):
        restore(places, where)
    mixed = Places({**places.databases}, elsewhere.lake, elsewhere.artifacts, elsewhere.reference, places.programs)
    with pytest.raises(RuntimeError, match="the database ml_assets is not empty"):
        restore(mixed, where)
    assert content(places) == before


def test_a_backup_copies_what_is_new_and_old_ones_go(places: Places, elsewhere: Places, where: str) -> None:
    first = backup(places, where, ["fails"])
    written = {path: path.stat().st_mtime_ns for path in Path(where, "files").rglob("*.parquet")}
    places.lake.replace("features/fails", rows(MONDAY, 3), "day", [MONDAY])
    table = places.lake.table("features/fails")
    assert table is not None
    table.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)
    second = backup(places, where, ["fails"])
    assert {path: path.stat().st_mtime_ns for path in written} == written
    assert [made.name for made, _ in backups(where)] == [second.name, first.name]
    third = backup(places, where, ["fails"], keep=1)
    assert backups(where) == [(third, [])]
    assert {str(p.relative_to(Path(where, "files"))) for p in Path(where, "files").rglob("*.parquet")} == set(
        third.files
    )
    with pytest.raises(LookupError, match=f"there is no backup {first.name} .*; there are {third.name}"):
        restore(elsewhere, where, first.name)
    restore(elsewhere, where, third.name)
    assert content(elsewhere) == content(places)


def test_a_server_that_cannot_be_dumped_says_why(places: Places, where: str, tmp_path: Path) -> None:
    absent = Places(places.databases, places.lake, places.artifacts, places.reference, tmp_path)
    with pytest.raises(RuntimeError, match="pg_dump is not installed here: it comes with PostgreSQL's client package"):
        backup(absent, where, ["fails"])
    assert backups(where) == []


def test_mlflow_finds_its_artifacts_at_their_new_place(database_url: str) -> None:
    plain = database_url.replace("+psycopg", "")
    with psycopg.connect(plain) as connection:
        connection.execute("CREATE TABLE runs (artifact_uri text)")
        connection.execute("CREATE TABLE experiments (artifact_location text)")
        connection.execute("INSERT INTO runs VALUES ('s3://bank/artifacts/1/run'), ('mlflow-artifacts:/1/run')")
        connection.execute("INSERT INTO experiments VALUES ('s3://bank/artifacts/1'), ('s3://bank/other')")
    move_artifacts(database_url, "s3://bank/artifacts", "/srv/artifacts")
    with psycopg.connect(plain) as connection:
        found = connection.execute("TABLE runs UNION ALL TABLE experiments").fetchall()
    assert sorted(found) == [
        ("/srv/artifacts/1",), ("/srv/artifacts/1/run",), ("mlflow-artifacts:/1/run",), ("s3://bank/other",),
    ]  # fmt: skip
