"""The secrets and the trust bundle of the overlay `local`, made anew for each throwaway cluster.

python -m ml_assets_tests.k8s.secrets | kubectl apply -f -
"""

import base64
import json
import secrets
import sys
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

from joserfc.jwk import ECKey

from ml_assets.database.roles import create_roles_sql
from ml_assets_tests.k8s.certificates import Authority

NAMESPACE = "ml-assets"
_HOST = "postgres"
# Each has a key of its own, and k8s/s3/ a policy for it. The sandbox's S3 server takes any key and enforces no policy.
S3_WORKLOADS = (
    "alerts", "code-location", "daemon", "desk", "lander", "mcp", "mlflow", "run", "scoring", "webserver",
    "webserver-writable",
)  # fmt: skip
ISSUER, AUDIENCE = "https://login.example", "ml-assets-scoring"  # as the overlay `local` names them


def manifests() -> list[dict[str, Any]]:
    """Return the Secrets and the ConfigMap of certificates."""
    passwords = {
        name: secrets.token_urlsafe(18)
        for name in ("dagster", "desk", "mcp", "mlflow", "migrator", "scorer", "scoring", "reader", "ben")
    }
    admin, runs = secrets.token_urlsafe(18), secrets.token_urlsafe(18)
    with tempfile.TemporaryDirectory() as folder:
        authority = Authority(Path(folder))
        server = authority.issue("tls", _HOST, hosts=[_HOST, f"{_HOST}.{NAMESPACE}.svc", "localhost"])
        files = {f"tls.{kind}": server.with_name(f"tls.{kind}").read_text() for kind in ("crt", "key")}
        of_service = {name: _certificate(authority, name) for name in ("mcp", "mlflow", "scoring")}
        ca = authority.certificate.read_text()

    def url(user: str, database: str, driver: str = "") -> str:
        return f"postgresql{driver}://{user}:{quote(passwords[user])}@{_HOST}:5432/{database}"

    signer = ECKey.generate_key("P-256", {"kid": "throwaway", "use": "sig"}, private=True)
    mlflow = url("mlflow", "mlflow", "+psycopg2")
    return [
        config_map("ml-assets-ca", {"ca.crt": ca}),
        config_map("ml-assets-token-keys", {"jwks.json": json.dumps({"keys": [signer.as_dict(private=False)]})}),
        secret("sandbox-token-signer", {"key.json": json.dumps(signer.as_dict(private=True))}),
        secret("sandbox-postgres", {**files, "init.sql": init_sql(passwords)}),
        secret(
            "ml-assets-dagster-database", {"ML_ASSETS_DAGSTER_POSTGRES_URL": url("dagster", "dagster", "+psycopg2")}
        ),
        secret("ml-assets-score-database", {"ML_ASSETS_POSTGRES_URL": url("scorer", "ml_assets")}),
        secret("ml-assets-scoring-database", {"ML_ASSETS_POSTGRES_URL": url("scoring", "ml_assets")}),
        secret("ml-assets-desk-database", {"ML_ASSETS_POSTGRES_URL": url("desk", "ml_assets")}),
        secret("ml-assets-mcp-database", {"ML_ASSETS_POSTGRES_URL": url("mcp", "ml_assets")}),
        secret("ml-assets-desk-forms", {"ML_ASSETS_DESK_SECRET": secrets.token_urlsafe(32)}),
        secret("ml-assets-migrate-database", {"ML_ASSETS_POSTGRES_URL": url("migrator", "ml_assets")}),
        secret(
            "ml-assets-mlflow-client", {"ML_ASSETS_MLFLOW_USERNAME": "ml-assets", "ML_ASSETS_MLFLOW_PASSWORD": runs}
        ),
        *(secret(f"ml-assets-{name}-tls", files) for name, files in of_service.items()),
        secret(
            "ml-assets-mlflow-server",
            {
                "MLFLOW_BACKEND_STORE_URI": mlflow,
                "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_urlsafe(32),
                "basic_auth.ini": "\n".join(
                    [
                        "[mlflow]",
                        "default_permission = READ",
                        f"database_uri = {url('mlflow', 'mlflow_auth', '+psycopg2').replace('%', '%%')}",
                        "admin_username = admin",
                        f"admin_password = {admin}",
                        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth",
                    ]
                ),
            },
        ),
        *(
            secret(
                f"ml-assets-s3-{workload}",
                {"AWS_ACCESS_KEY_ID": workload, "AWS_SECRET_ACCESS_KEY": secrets.token_urlsafe(24)},
            )
            for workload in S3_WORKLOADS
        ),
    ]


def init_sql(passwords: dict[str, str]) -> str:
    """Return the SQL that a database administrator runs once: roles, and a database for each owner."""
    logins = [f"CREATE ROLE {user} LOGIN PASSWORD '{password}';" for user, password in passwords.items()]
    databases = [
        f"CREATE DATABASE {database} OWNER {owner};\nREVOKE ALL ON DATABASE {database} FROM PUBLIC;"
        for database, owner in (
            ("dagster", "dagster"), ("mlflow", "mlflow"), ("mlflow_auth", "mlflow"), ("ml_assets", "migrator"),
        )
    ]  # fmt: skip
    members = (
        "GRANT ml_assets_migrate TO migrator;\nGRANT ml_assets_load TO scorer, ben;\n"
        "GRANT ml_assets_read TO reader, mcp;\nGRANT ml_assets_serve TO scoring;\nGRANT ml_assets_desk TO desk;"
    )
    roles = create_roles_sql("ml_assets")
    return "\n".join([*logins, *databases, "\\connect ml_assets", roles, members])


def _certificate(authority: Authority, name: str) -> dict[str, str]:
    """Return the certificate of a service of the project, as a TLS secret has it."""
    hosts = [f"ml-assets-{name}", f"ml-assets-{name}.{NAMESPACE}.svc"]
    made = authority.issue(name, hosts[0], hosts=hosts)
    return {f"tls.{kind}": made.with_name(f"{name}.{kind}").read_text() for kind in ("crt", "key")}


def secret(name: str, values: dict[str, str]) -> dict[str, Any]:
    data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": NAMESPACE}, "data": data}


def config_map(name: str, data: dict[str, str]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": NAMESPACE}, "data": data}


if __name__ == "__main__":
    json.dump({"apiVersion": "v1", "kind": "List", "items": manifests()}, sys.stdout)
