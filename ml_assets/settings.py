"""Every knob of the project, its default and its unit. Nothing else reads the environment.

Set a knob with an environment variable `ML_ASSETS_<NAME>`, a line in `.env`, or, for a mounted secret, a file
`ML_ASSETS_<NAME>` in the folder that `ML_ASSETS_SECRETS_DIR` names.
"""

import os
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, Field, SecretStr
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
)


def _or(name: str, *standard: str) -> AliasChoices:
    """Return the names of a knob that has standard variables of its own too: ours first, then theirs."""
    return AliasChoices(f"ML_ASSETS_{name}", *standard)


class Settings(BaseSettings):
    """Where things are and how much they may use. Empty addresses mean the embedded server below `home`."""

    model_config = SettingsConfigDict(env_prefix="ML_ASSETS_", env_file=".env", extra="ignore", populate_by_name=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - replaced by the folder of the environment
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return where a value is looked for, in this order; the folder of secrets is itself in the environment."""
        folder = os.environ.get("ML_ASSETS_SECRETS_DIR")
        secrets = (SecretsSettingsSource(settings_cls, secrets_dir=folder),) if folder else ()
        return (init_settings, env_settings, dotenv_settings, *secrets)

    home: Path = Field(Path(".ml_assets"), description="folder of everything that is made locally")
    usecase_packages: list[str] = Field(["ml_assets.usecases"], description="packages that are searched for use cases")
    lake_root: str = Field("", description="folder or s3:// prefix of the Delta tables; empty: <home>/lake")
    artifact_root: str = Field("", description="folder or s3:// prefix of MLflow's artifacts; empty: <home>/artifacts")
    reference_root: str = Field("", description="folder of dropped reference files; empty: <home>/reference")
    kafka_bootstrap: str = Field("", description="host:port of the broker; empty: the embedded broker")
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="how the brokers are spoken to"
    )
    kafka_sasl_mechanism: Literal["SCRAM-SHA-256", "SCRAM-SHA-512", "PLAIN"] = Field(
        "SCRAM-SHA-512", description="how we log on, where the protocol is SASL_..."
    )
    kafka_username: str = Field("", description="user at the brokers, where the protocol is SASL_...")
    kafka_password: SecretStr = Field(SecretStr(""), description="password of that user")
    kafka_ca_file: str = Field("", description="PEM file of the certificates to trust; empty: the system's")
    schema_registry_url: str = Field("", description="Confluent schema registry of Avro events; empty: no Avro")
    connect_root: str = Field(
        "", description="folder or s3:// prefix that Kafka Connect's S3 sink writes to; empty: not used"
    )
    landing_assignment: Literal["group", "all"] = Field(
        "group", description="group: replicas of the lander share the partitions; all: this lander takes every one"
    )
    landing_flush_rows: int = Field(50_000, ge=1, description="messages of a topic that are committed together at most")
    landing_flush_mib: int = Field(32, ge=1, description="MiB of messages held in memory before they are committed")
    landing_flush_seconds: float = Field(2.0, gt=0, description="seconds after which a message is committed at most")
    metrics_port: int = Field(0, ge=0, le=65535, description="port of the lander's /metrics, /live, /ready; 0: none")
    landing_clock: Literal["live", "replay"] = Field(
        "live",
        description="live: known_at is the later of broker time and landing; replay: known_at is broker time, "
        "for history that is played again",
    )
    postgres_url: SecretStr = Field(
        SecretStr(""), description="postgresql://user:password@host:port; empty: the embedded server"
    )
    postgres_sslmode: Literal["", "require", "verify-ca", "verify-full"] = Field(
        "", description="TLS to the server of postgres_url; verify-full in production; empty: as the URL says"
    )
    postgres_ca: str = Field("", description="file of the certificate authority of the server of postgres_url")
    migrate_on_connect: bool = Field(
        True, description="migrate the application's database when it is opened; false where a Job does it beforehand"
    )
    mlflow_uri: str = Field(
        "", description="http(s):// of the MLflow server, or a database; empty: the database of postgres_url"
    )
    mlflow_username: str = Field(
        "", description="user on the MLflow server", validation_alias=_or("MLFLOW_USERNAME", "MLFLOW_TRACKING_USERNAME")
    )
    mlflow_password: SecretStr = Field(
        SecretStr(""),
        description="its password",
        validation_alias=_or("MLFLOW_PASSWORD", "MLFLOW_TRACKING_PASSWORD"),
    )
    s3_endpoint: str = Field(
        "",
        description="URL of the S3 server; empty: AWS",
        validation_alias=_or("S3_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
    )
    s3_region: str = Field("", description="region", validation_alias=_or("S3_REGION", "AWS_REGION"))
    s3_access_key: SecretStr = Field(
        SecretStr(""),
        description="access key; empty: the role of the pod or machine",
        validation_alias=_or("S3_ACCESS_KEY", "AWS_ACCESS_KEY_ID"),
    )
    s3_secret_key: SecretStr = Field(
        SecretStr(""), description="its secret", validation_alias=_or("S3_SECRET_KEY", "AWS_SECRET_ACCESS_KEY")
    )
    s3_encryption: Literal["", "AES256", "aws:kms"] = Field(
        "", description="server-side encryption asked for with each upload; empty: the bucket's default"
    )
    s3_kms_key: str = Field("", description="key of aws:kms; empty: the account's default key")
    event_log_days: int = Field(
        90, ge=1, description="Dagster's logs of runs that ended so many days ago are purged; runs and assets stay"
    )
    prediction_months: int = Field(
        24, ge=1, description="full months before this one for which predictions are kept in PostgreSQL"
    )
    threads: int = Field(0, ge=0, description="threads of DuckDB, LightGBM and ONNX Runtime; 0: one a core")
    retraining_cron: str = Field("0 22 * * 1-5", description="when to retrain, in UTC; once a date at most")
    usd_per_cpu_hour: float = Field(
        0.04, ge=0, description="price of an hour of a CPU, for the estimated cost of a run; about that of a cloud"
    )
    usd_per_gib_hour: float = Field(0.0045, ge=0, description="price of an hour of a GiB of memory, for the same")
    max_concurrent_runs: int = Field(2, ge=1, description="Dagster runs at a time; the others wait in the queue")
    traceback: bool = Field(False, description="show where an error of the command line comes from")
    actor: str = Field("", description="who acts on the command line; empty: the login name of the operating system")
    code_version: str = Field("", description="git commit of the running code; empty: asked from git")

    @cached_property
    def home_path(self) -> Path:
        """`home` as an absolute path."""
        return self.home.expanduser().resolve()

    @property
    def lake_uri(self) -> str:
        """Root of the Delta tables."""
        return self.lake_root or str(self.home_path / "lake")

    @property
    def reference_uri(self) -> str:
        """Root of the dropped reference files."""
        return self.reference_root or str(self.home_path / "reference")

    @property
    def artifact_uri(self) -> str:
        """Root of MLflow's artifacts."""
        return self.artifact_root or str(self.home_path / "artifacts")
