"""The overlays of the clouds: each pod has a role in place of keys and passwords, and settings open what they name."""

import base64
import json
from importlib.metadata import entry_points
from typing import Any

import pytest
from sqlalchemy import URL, make_url

from ml_assets.cloud import aws
from ml_assets.database.logins import TokenLogin
from ml_assets.local.embedded.environment import kafka_connection
from ml_assets.object_store import filesystem_options, is_gcs, is_s3, lake_options
from ml_assets.settings import Settings
from ml_assets_tests.k8s.manifests import CLOUDS, ROOT, containers, of_kind, overlay
from ml_assets_tests.k8s.test_manifests import S3, _values, secrets_of_runs

ROLE = {"aws": "eks.amazonaws.com/role-arn", "gcp": "iam.gke.io/gcp-service-account"}
WAYS_TO_TOKENS = {"aws": "to-sts", "gcp": "to-metadata-server"}

each_cloud = pytest.mark.parametrize("cloud", CLOUDS)


def settings_of(cloud: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings as the pods of an overlay read them."""
    (said,) = (m["data"] for n, m in of_kind(overlay(cloud), "ConfigMap").items() if n.startswith("ml-assets-settings"))
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    return Settings(_env_file=None)


def databases_of(cloud: str) -> dict[str, dict[str, URL]]:
    """The addresses of databases by workload, by secret."""
    made = {
        name: make_url(base64.b64decode(value).decode())
        for name, secret in of_kind(overlay(cloud), "Secret").items()
        for value in secret["data"].values()
    }
    named = [
        (where.partition("/")[0], source["secretRef"]["name"])
        for where, _, container in containers(overlay(cloud))
        for source in container.get("envFrom", [])
        if "secretRef" in source
    ] + [("ml-assets-run", secret["name"]) for secret in secrets_of_runs()]
    found: dict[str, dict[str, URL]] = {}
    for workload, secret in named:
        if secret in made:
            found.setdefault(workload, {})[secret] = made[secret]
    return found


@each_cloud
def test_each_account_has_a_role_of_its_own_and_a_way_to_its_tokens(cloud: str) -> None:
    """Guards a pod that waits for a token behind the policy that denies all."""
    accounts = of_kind(overlay(cloud), "ServiceAccount")
    roles = {name: account["metadata"]["annotations"][ROLE[cloud]] for name, account in accounts.items()}
    assert len(set(roles.values())) == len(roles)
    assert all(name in role for name, role in roles.items())
    way = of_kind(overlay(cloud), "NetworkPolicy")[WAYS_TO_TOKENS[cloud]]["spec"]
    assert {f"ml-assets-{name}" for name in _values(way["podSelector"])} == set(accounts)


@each_cloud
def test_no_key_and_no_password_of_the_cloud_is_anywhere(cloud: str) -> None:
    made = of_kind(overlay(cloud), "ExternalSecret", "Secret")
    assert not [name for name in made if name.startswith(S3)]
    for urls in databases_of(cloud).values():
        for secret, url in urls.items():
            assert url.password is None, secret


@each_cloud
def test_each_database_is_opened_with_a_login_that_is_installed(cloud: str) -> None:
    """Guards a misspelt plugin, which would stop Dagster and MLflow at their start."""
    installed = {one.name: one for one in entry_points(group="sqlalchemy.plugins")}
    databases = databases_of(cloud)
    assert {"ml-assets-dagster-database", "ml-assets-score-database"} == set(databases["ml-assets-run"])
    for urls in databases.values():
        for url in urls.values():
            plugin = url.query["plugin"]
            assert plugin == f"{cloud}_iam"
            assert issubclass(installed[plugin].load(), TokenLogin)
            assert bool(url.username) is (cloud == "aws"), "an account of Google's is one user"


def test_aws_names_the_lake_its_key_and_kafka(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of("aws", monkeypatch)
    options = lake_options(settings)
    assert options["aws_server_side_encryption"] == "aws:kms"
    assert options["aws_sse_kms_key_id"] == settings.s3_kms_key
    assert not {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} & set(options)
    assert not {"key", "secret"} & set(filesystem_options(settings))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):  # the role's
        monkeypatch.setenv(name, "made-up")
    aws._session.cache_clear()
    config = kafka_connection(settings).config()
    aws._session.cache_clear()
    assert (config["security.protocol"], config["sasl.mechanism"]) == ("SASL_SSL", "OAUTHBEARER")
    assert callable(config["oauth_cb"])
    ports = of_kind(overlay("aws"), "NetworkPolicy")["to-kafka"]["spec"]["egress"][0]["ports"]
    assert {address.rpartition(":")[2] for address in config["bootstrap.servers"].split(",")} == {str(ports[0]["port"])}


def test_gcp_keeps_everything_on_gcs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards a root that stays on S3, which no pod there can reach."""
    settings = settings_of("gcp", monkeypatch)
    (said,) = (m["data"] for n, m in of_kind(overlay("gcp"), "ConfigMap").items() if n.startswith("ml-assets-settings"))
    assert not [name for name, value in said.items() if is_s3(value) or name.startswith("AWS_")]
    roots = (settings.lake_uri, settings.reference_uri, settings.artifact_uri, settings.report_uri)
    assert all(map(is_gcs, [*roots, said["ML_ASSETS_COMPUTE_LOG_ROOT"]]))


def policy_of(workload: str) -> dict[str, Any]:
    statements = json.loads((ROOT / "overlays" / "aws" / "iam" / f"{workload}.json").read_text())["Statement"]
    return {action: statement["Resource"] for statement in statements for action in statement["Action"]}


def test_a_role_of_aws_may_log_in_as_the_users_of_its_pods_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards a role that may be any user of the database, and one that may not be its own."""
    settings = settings_of("aws", monkeypatch)
    accounts = of_kind(overlay("aws"), "ServiceAccount")
    databases = databases_of("aws")
    on_kafka = _values(of_kind(overlay("aws"), "NetworkPolicy")["to-kafka"]["spec"]["podSelector"])
    for account in accounts:
        workload = account.removeprefix("ml-assets-")
        policy = policy_of(workload)
        users = {str(url.username) for url in databases.get(account, {}).values()}
        # MLflow's addresses are in the vault, with its accounts.
        users |= {"mlflow"} if workload in {"mlflow", "migrate"} else set()
        assert {name.rpartition("/")[2] for name in policy.get("rds-db:connect", [])} == users, workload
        assert policy.get("kms:Decrypt", [settings.s3_kms_key]) == [settings.s3_kms_key]
        s3 = ROOT / "s3" / f"{workload}.json"
        assert ("kms:Decrypt" in policy) == s3.is_file(), workload
        assert ("kms:GenerateDataKey" in policy) == (s3.is_file() and "s3:PutObject" in s3.read_text()), workload
        assert ("kafka-cluster:Connect" in policy) == (workload in on_kafka), workload
