"""Tables that another engine has altered: what we cannot read or write is said, with what to do about it."""

import json
from datetime import date
from pathlib import Path

import pyarrow as pa
import pytest

from ml_assets.lake import ForeignTableError, Lake

MONDAY = date(2026, 1, 5)
ROWS = pa.table({"day": pa.array([MONDAY] * 2, pa.date32()), "n": pa.array([1, 2], pa.int64())})


@pytest.fixture
def lake(tmp_path):
    """A lake with a table `t` of ours."""
    found = Lake(str(tmp_path))
    found.replace("t", ROWS, "day", [MONDAY])
    return found


def alter(lake, change, *actions):
    """Commit to the log of the table as another engine would: its metadata changed, and more actions."""
    log = Path(lake.root) / "t" / "_delta_log"
    lines = [json.loads(line) for file in sorted(log.glob("*.json")) for line in file.read_text().splitlines()]
    metadata = next(line["metaData"] for line in reversed(lines) if "metaData" in line)
    change(metadata)
    commit = "\n".join(map(json.dumps, [*actions, {"metaData": metadata}]))
    (log / f"{lake.version('t') + 1:020}.json").write_text(commit)


def deletion_vectors(lake):
    features = ["deletionVectors"]
    protocol = {
        "minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": features, "writerFeatures": features,
    }  # fmt: skip
    alter(lake, lambda m: m["configuration"].update({"delta.enableDeletionVectors": "true"}), {"protocol": protocol})


def column_mapping(lake):
    def change(metadata):
        metadata["configuration"] |= {"delta.columnMapping.mode": "name", "delta.columnMapping.maxColumnId": "2"}
        schema = json.loads(metadata["schemaString"])
        for number, field in enumerate(schema["fields"]):
            field["metadata"] = {
                "delta.columnMapping.id": number + 1, "delta.columnMapping.physicalName": field["name"],
            }  # fmt: skip
        metadata["schemaString"] = json.dumps(schema)

    alter(lake, change, {"protocol": {"minReaderVersion": 2, "minWriterVersion": 5}})


def column(lake, *, nullable):
    def change(metadata):
        schema = json.loads(metadata["schemaString"])
        schema["fields"].append({"name": "owner", "type": "string", "nullable": nullable, "metadata": {}})
        metadata["schemaString"] = json.dumps(schema)

    alter(lake, change)


ACTS = {
    "read": lambda lake: lake.read("t"),
    "files": lambda lake: lake.files("t", "day"),
    "replace": lambda lake: lake.replace("t", ROWS, "day", [MONDAY]),
    "positions": lambda lake: lake.appender("t", ["day"]).positions(["a"]),
    "append": lambda lake: lake.appender("t", ["day"]).append(ROWS, {"a": 0}, {"a": 1}),
    "empty": lambda lake: lake.empty("t"),
}


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize(
    ("foreign", "feature", "first"),
    [
        (deletion_vectors, "deletionVectors", "'delta.enableDeletionVectors' = false"),
        (column_mapping, "columnMapping", "'delta.columnMapping.mode' = 'none'"),
    ],
)
def test_a_feature_that_we_cannot_read_is_named_with_the_commands_that_drop_it(lake, act, foreign, feature, first):
    """Guards rows that somebody deleted and we would count, and writers that fail without a word on what to do."""
    foreign(lake)
    with pytest.raises(ForeignTableError) as error:
        ACTS[act](lake)
    said = str(error.value)
    assert f"the table t has {feature}" in said
    assert f"ALTER TABLE delta.`file://{lake.uri('t')}/`" in said
    assert said.index(first) < said.index(f"DROP FEATURE {feature}")


def test_a_version_from_before_the_feature_is_read(lake):
    version = lake.version("t")
    deletion_vectors(lake)
    assert lake.read("t", version=version).num_rows == 2


@pytest.mark.parametrize("act", ["replace", "append"])
def test_a_foreign_column_that_wants_values_is_named_with_the_command_that_lets_it_be(lake, act):
    column(lake, nullable=False)
    assert ACTS["read"](lake).num_rows == 2
    with pytest.raises(ForeignTableError, match="NOT NULL columns that our rows do not have: owner") as error:
        ACTS[act](lake)
    assert f"ALTER TABLE delta.`file://{lake.uri('t')}/` ALTER COLUMN owner DROP NOT NULL" in str(error.value)
    assert ACTS["read"](lake).num_rows == 2


def test_a_foreign_column_that_wants_none_is_left_null(lake):
    column(lake, nullable=True)
    ACTS["append"](lake)
    assert lake.read("t")["owner"].to_pylist() == [None] * 4
