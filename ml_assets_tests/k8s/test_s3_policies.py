"""What the key of each workload may do in the bucket: k8s/s3/, on an S3 server that enforces them.

The server knows no conditions for listings, so here each key lists all names; it does hold readers and writers of
objects apart.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from ml_assets.lake import landing_table
from ml_assets_tests.k8s.manifests import ROOT, of_kind, overlay
from ml_assets_tests.k8s.secrets import S3_WORKLOADS
from ml_assets_tests.s3 import S3Keys, S3Server, s3_server

BUCKET = "markets-operations-ml"
PLACES = (
    "lake/landing/trades",
    "lake/predictions/fails",
    "reference",
    "artifacts",
    "reports",
    "compute-logs",
    "elsewhere",
)
READS = {
    "alerts": {"lake/landing/trades", "lake/predictions/fails", "reports"},
    "code-location": {"lake/landing/trades", "lake/predictions/fails", "reference", "compute-logs"},
    "daemon": {"compute-logs"},
    "desk": {"lake/landing/trades", "lake/predictions/fails"},
    "lander": {"lake/landing/trades"},
    "mcp": {"lake/landing/trades", "lake/predictions/fails"},
    "mlflow": {"artifacts"},
    "run": {"lake/landing/trades", "lake/predictions/fails", "reference", "reports", "compute-logs"},
    "scoring": {"lake/landing/trades", "lake/predictions/fails"},
    "webserver": {"compute-logs"},
    "webserver-writable": {"compute-logs"},
}
WRITES = {
    **READS,
    "alerts": set[str](),
    "code-location": {"compute-logs"},
    "run": READS["run"] - {"reference"},
    "desk": set[str](),
    "mcp": set[str](),
    "scoring": set[str](),
    "webserver": set[str](),
    "webserver-writable": set[str](),
}


def policy(workload: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((ROOT / "s3" / f"{workload}.json").read_text())
    return read


@pytest.fixture(scope="module")
def keys() -> Iterator[dict[str, S3Server]]:
    """A server with an object in each place, as the key of each workload reaches it."""
    with s3_server() as server:
        server.create_bucket(BUCKET)
        users, made = S3Keys.client(server), {}
        for place in PLACES:
            client(server).put_object(Bucket=BUCKET, Key=f"{place}/there", Body=b"1")
        for workload in S3_WORKLOADS:
            document = policy(workload)
            for statement in document["Statement"]:
                statement.pop("Condition", None)
            users.create_user(UserName=workload)
            users.put_user_policy(UserName=workload, PolicyName="s3", PolicyDocument=json.dumps(document))
            key = users.create_access_key(UserName=workload)["AccessKey"]
            made[workload] = replace(server, access_key=key["AccessKeyId"], secret_key=key["SecretAccessKey"])
        server.require_keys()
        yield made


def client(server: S3Server) -> Any:
    return boto3.client(
        "s3", endpoint_url=server.endpoint, region_name=server.region, aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
    )  # fmt: skip


def may(server: S3Server, verb: str, place: str, **more: Any) -> bool:
    """Whether the server lets this key do that to an object in a place."""
    try:
        getattr(client(server), verb)(Bucket=BUCKET, Key=f"{place}/there", **more)
    except ClientError as error:
        if error.response["Error"]["Code"] != "AccessDenied":
            raise
        return False
    return True


@pytest.mark.parametrize("workload", S3_WORKLOADS)
def test_a_key_reads_and_writes_its_own_places_only(keys: dict[str, S3Server], workload: str) -> None:
    """Guards one key for all: the lander, a UI or a run could replace a model, and anybody the lake."""
    key = keys[workload]
    assert {place for place in PLACES if may(key, "get_object", place)} == READS[workload]
    assert {place for place in PLACES if may(key, "put_object", place, Body=b"1")} == WRITES[workload]
    assert {place for place in PLACES if may(key, "delete_object", place)} == WRITES[workload]
    for place in WRITES[workload]:  # for the next
        assert may(key, "put_object", place, Body=b"1")


@pytest.mark.parametrize("workload", S3_WORKLOADS)
def test_a_policy_says_nothing_that_the_test_server_cannot_try(workload: str) -> None:
    """Only names are listed under a condition: that they begin like a place of the workload."""
    places = {place.partition("/")[0] for place in READS[workload]}
    for statement in policy(workload)["Statement"]:
        assert statement["Effect"] == "Allow"
        assert set(statement["Action"]) <= {
            "s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload", "s3:ListBucket",
        }  # fmt: skip
        if statement["Action"] != ["s3:ListBucket"]:
            assert "Condition" not in statement
            continue
        assert statement["Resource"] == [f"arn:aws:s3:::{BUCKET}"]
        assert {prefix.partition("/")[0] for prefix in statement["Condition"]["StringLike"]["s3:prefix"]} == places


def test_the_places_are_those_of_the_settings() -> None:
    """Guards a setting that moves, after which a policy protects an empty folder."""
    (settings,) = (
        m["data"] for n, m in of_kind(overlay("production"), "ConfigMap").items() if n.startswith("ml-assets-settings")
    )
    roots = {settings[f"ML_ASSETS_{name}_ROOT"] for name in ("LAKE", "REFERENCE", "ARTIFACT", "REPORT")}
    assert roots == {f"s3://{BUCKET}/{place}" for place in ("lake", "reference", "artifacts", "reports")}
    assert settings["ML_ASSETS_COMPUTE_LOG_ROOT"] == f"s3://{BUCKET}/compute-logs"
    assert landing_table("trades") == "landing/trades", "what a lander writes"
