"""Every knob of the project, its default and its unit. Nothing else reads the environment.

Set a knob with an environment variable `ML_ASSETS_<NAME>`, a line in `.env`, or, for a mounted secret, a file
`ML_ASSETS_<NAME>` in the folder that `ML_ASSETS_SECRETS_DIR` names.
"""

import os
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
)

from ml_assets.errors import InputError
from ml_assets.links import DAGSTER_PORT, MLFLOW_PORT, Links


def _or(name: str, *standard: str) -> AliasChoices:
    """Return the names of a knob that has standard variables of its own too: ours first, then theirs."""
    return AliasChoices(f"ML_ASSETS_{name}", *standard)


class SettingsError(InputError):
    """A setting has a value that it cannot have; the text names the variable and says what is wrong."""


class Shown(NamedTuple):
    """A setting as a person reads it: the variable that sets it, its value (no secret), where that is from, its use."""

    variable: str
    value: str
    source: str
    meaning: str


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

    def __init__(self, **values: Any) -> None:
        """Read the settings.

        Raises:
            SettingsError: one has a value that it cannot have.
        """
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise SettingsError("; ".join(_in_words(one, type(self)) for one in error.errors())) from None

    @field_validator("usecase_packages", mode="before")
    @classmethod
    def _take_commas(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if value.lstrip().startswith("["):
            try:
                return msgspec.json.decode(value, type=list[str])
            except msgspec.DecodeError:
                raise InputError('is no list; write names with commas between, or JSON: ["one", "two"]') from None
        return [name.strip() for name in value.split(",") if name.strip()]

    @field_validator(
        "lake_root", "artifact_root", "reference_root", "report_root", "connect_root", "kafka_ca_file", "postgres_ca",
        "alert_routes", "spill_root",
        mode="after",
    )  # fmt: skip
    @classmethod
    def _expand_home(cls, value: str) -> str:
        return str(Path(value).expanduser()) if value.startswith("~") else value

    home: Path = Field(Path(".ml_assets"), description="folder of everything that is created locally")
    usecase_packages: Annotated[list[str], NoDecode] = Field(
        ["ml_assets.usecases"],
        description="packages whose folders are use cases, separated by commas; replaces the default, so include "
        "ml_assets.usecases to keep ours",
    )
    lake_root: str = Field("", description="folder, s3:// or gs:// prefix of the Delta tables; empty: <home>/lake")
    artifact_root: str = Field(
        "", description="folder, s3:// or gs:// prefix of MLflow's artifacts; empty: <home>/artifacts"
    )
    reference_root: str = Field(
        "", description="folder, s3:// or gs:// prefix of the reference files; empty: <home>/reference"
    )
    report_root: str = Field(
        "", description="folder, s3:// or gs:// prefix that reports are written to; empty: <home>/reports"
    )
    kafka_bootstrap: str = Field("", description="host:port of the broker; empty: the embedded broker")
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="protocol of the brokers"
    )
    kafka_sasl_mechanism: Literal["SCRAM-SHA-256", "SCRAM-SHA-512", "PLAIN", "OAUTHBEARER"] = Field(
        "SCRAM-SHA-512", description="login mechanism, if the protocol is SASL_..."
    )
    kafka_token: str = Field(
        "", description="token of OAUTHBEARER: aws, signed with the pod's role for Amazon MSK; or the file of a JWT "
        "that is kept fresh, as of a service account"
    )  # fmt: skip
    kafka_username: str = Field("", description="user at the brokers, if the protocol is SASL_...")
    kafka_password: SecretStr = Field(SecretStr(""), description="password of that user")
    kafka_ca_file: str = Field("", description="PEM file of the certificates to trust; empty: the system's")
    schema_registry_url: str = Field("", description="Confluent schema registry of Avro events; empty: no Avro")
    connect_root: str = Field(
        "", description="folder or s3:// prefix that Kafka Connect's S3 sink writes to; empty: not used"
    )
    landing_assignment: Literal["group", "all"] = Field(
        "group", description="group: replicas of the lander share the partitions; all: this lander takes every one"
    )
    landing_flush_rows: int = Field(50_000, ge=1, description="largest number of messages of a topic in one commit")
    landing_flush_mib: int = Field(32, ge=1, description="MiB of messages held in memory before they are committed")
    landing_flush_seconds: float = Field(2.0, gt=0, description="longest time in seconds until a message is committed")
    metrics_port: int = Field(
        0, ge=0, le=65535, description="port of /metrics, /live, /ready of the lander, or of the evaluator; 0: none"
    )
    landing_clock: Literal["live", "replay"] = Field(
        "live",
        description="live: known_at is the later of broker time and landing; replay: known_at is broker time, "
        "for history",
    )
    postgres_url: SecretStr = Field(
        SecretStr(""),
        description="postgresql://user:password@host:port, or postgresql://user@host:port?plugin=aws_iam (gcp_iam) "
        "where the pod's role logs in; empty: the embedded server",
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
    mlflow_ui: str = Field(
        "", description="public http(s):// of the MLflow UI, for links; empty: that of `ml-assets ui`, else no links"
    )
    dagster_ui: str = Field(
        "", description="public http(s):// of the Dagster UI, for links; empty: that of `ml-assets ui`"
    )
    report_ui: str = Field(
        "", description="public http(s):// below which the files of report_root are served, for links; empty: no links"
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
    gcs_endpoint: str = Field(
        "",
        description="URL of a GCS server that asks for no login, as an emulator; empty: Google",
        validation_alias=_or("GCS_ENDPOINT", "STORAGE_EMULATOR_HOST"),
    )
    serving_jwks: str = Field(
        "", description="file or https:// of the public keys (JWKS) by which tokens are signed; empty: no tokens"
    )
    serving_issuer: str = Field("", description="who must have issued a token (its iss)")
    serving_audience: str = Field("", description="whom a token must be for (its aud): the scoring service")
    serving_leeway_seconds: int = Field(
        30, ge=0, le=300, description="by how much the clocks of token provider and service may differ"
    )
    serving_tls_cert: str = Field("", description="PEM file of the service's certificate chain; empty: no TLS")
    serving_tls_key: str = Field("", description="PEM file of its key")
    serving_client_ca: str = Field(
        "", description="PEM file of the authority that signs clients' certificates; with it, each client needs one"
    )
    serving_rate: float = Field(
        0, ge=0, description="requests a second that one client of the service may send in the long run; 0: no limit"
    )
    serving_record_capacity: int = Field(
        20_000, ge=1, description="answers that wait for Kafka at most; what finds no room is dropped and counted"
    )
    serving_least_change: float = Field(
        0.01, ge=0, le=1, description="by how much a probability must change to be told to the topic predictions again"
    )
    serving_drain_seconds: float = Field(
        0, ge=0, le=300, description="for how long the scoring service still answers after SIGTERM, behind a balancer"
    )
    serving_traces: str = Field(
        "",
        pattern="^(https?://.+)?$",
        description="http(s):// of the OTLP/HTTP collector that takes the service's traces; empty: none. "
        "OTEL_TRACES_SAMPLER and OTEL_EXPORTER_OTLP_HEADERS count too",
    )
    desk_proxy: str = Field(
        "", description="addresses (CIDR, commas between) of the proxy that tells the desk who asks; empty: this "
        "machine's login"
    )  # fmt: skip
    desk_roles: str = Field(
        "{}", description="JSON: by group of the proxy's people, by use case (*: all), viewer, analyst or lead"
    )
    desk_secret: SecretStr = Field(
        SecretStr(""), description="signs the desk's forms, the same for all its pods; empty: a file below home"
    )
    event_log_days: int = Field(
        90,
        ge=1,
        description="days after a run's end until Dagster's logs of its steps are purged; runs and assets stay",
    )
    prediction_months: int = Field(
        24, ge=1, description="full months before this one for which predictions are kept in PostgreSQL"
    )
    threads: int = Field(0, ge=0, description="threads of DuckDB, LightGBM and ONNX Runtime; 0: one per core")
    memory_mib: int = Field(
        0, ge=0, description="MiB of memory that a process may use; 0: what its container may, else the machine's"
    )
    spill_root: str = Field(
        "", description="folder for what DuckDB cannot hold in memory, on a disk with room; empty: <home>/spill"
    )
    spill_mib: int = Field(
        0, ge=0, description="MiB that each open database may put there; 0: nine tenths of what is free"
    )
    retraining_cron: str = Field("0 22 * * 1-5", description="when to retrain, in UTC; at most once per date")
    report_cron: str = Field("15 8 * * 1-5", description="when reports are made, in UTC; at most once per date")
    alert_cron: str = Field(
        "*/5 * * * *",
        description="when a run looks at rules of alerts that are due, in UTC; empty: `alerts run --every` does",
    )
    alert_routes: str = Field(
        "", description="TOML file of who is told of which alerts, and when; empty: nobody, the ledger has them"
    )
    alert_secrets: SecretStr = Field(
        SecretStr("{}"), description="JSON: by sink of that file the password of its mail server, or its signing key"
    )
    runbook_ui: str = Field(
        "", description="public http(s):// of docs/runbooks.md, for links in messages; empty: the file's name"
    )
    usd_per_cpu_hour: float = Field(
        0.04, ge=0, description="price of an hour of a CPU, for the estimated cost of a run; about that of a cloud"
    )
    usd_per_gib_hour: float = Field(0.0045, ge=0, description="price of an hour of a GiB of memory, for the same")
    max_concurrent_runs: int = Field(2, ge=1, description="Dagster runs at a time; the others wait in the queue")
    backfill_runs: int = Field(
        1, ge=1, description="runs of backfills that make dates of one use case at a time, out of max_concurrent_runs"
    )
    backfill_dates: int = Field(20, ge=1, description="dates in one run of a backfill of curated events to labels")
    traceback: bool = Field(False, description="show the traceback of an error of the command line")
    actor: str = Field("", description="who acts on the command line; empty: the login name of the operating system")
    code_version: str = Field("", description="git commit of the running code; empty: asked from git")

    @cached_property
    def home_path(self) -> Path:
        """`home` as an absolute path."""
        return self.home.expanduser().resolve()

    @property
    def links(self) -> Links:
        """Where people open models, assets and runs; with the embedded database, where `ml-assets ui` opens them.

        Elsewhere only what is said counts: the address by which pods reach a server is none for people.
        """
        mlflow, dagster = self.mlflow_ui, self.dagster_ui
        if not self.postgres_url.get_secret_value():
            served = self.mlflow_uri if self.mlflow_uri.startswith("http") else ""
            mlflow = mlflow or served or f"http://localhost:{MLFLOW_PORT}"
            dagster = dagster or f"http://localhost:{DAGSTER_PORT}"
        return Links(mlflow=mlflow.rstrip("/"), dagster=dagster.rstrip("/"), reports=self.report_ui.rstrip("/"))

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

    @property
    def report_uri(self) -> str:
        """Root of the reports."""
        return self.report_root or str(self.home_path / "reports")

    @property
    def spill_path(self) -> Path:
        """Folder for what DuckDB cannot hold in memory."""
        return Path(self.spill_root) if self.spill_root else self.home_path / "spill"

    @property
    def runbook_uri(self) -> str:
        """The page of runbooks, to which the name of a section is added."""
        return self.runbook_ui or "docs/runbooks.md"

    def shown(self) -> Iterator[Shown]:
        """Yield all settings, in the order of declaration."""
        sources: list[tuple[str, PydanticBaseSettingsSource]] = [
            ("environment", EnvSettingsSource(type(self))),
            (".env", DotEnvSettingsSource(type(self))),
        ]
        if folder := os.environ.get("ML_ASSETS_SECRETS_DIR"):
            sources.append((f"file in {folder}", SecretsSettingsSource(type(self), secrets_dir=folder)))
        found = [(name, source()) for name, source in sources]
        for name, field in type(self).model_fields.items():
            names = _variables(name, type(self))
            # Sources name what they found by the field, or by the variable that it was found under.
            source = next(
                (where for where, has in found if {name, *names, *map(str.lower, names)} & set(has)), "default"
            )
            value = getattr(self, name)
            if isinstance(value, SecretStr):
                text = "(set, not shown)" if value.get_secret_value() else ""
            else:
                text = ",".join(value) if isinstance(value, list) else str(value)
            # An address may hold a password.
            yield Shown(names[0], re.sub(r"(://[^/@:]*):[^@/]*@", r"\1:...@", text), source, field.description or "")


def _variables(name: str, settings: type[Settings]) -> list[str]:
    """Return the environment variables that set a field, ours first."""
    alias = settings.model_fields[name].validation_alias
    return [str(one) for one in alias.choices] if isinstance(alias, AliasChoices) else [f"ML_ASSETS_{name.upper()}"]


def _in_words(error: Any, settings: type[Settings]) -> str:
    said = str(error["loc"][0]) if error["loc"] else "a setting"
    name = next((n for n in settings.model_fields if said.lower() in {n, *map(str.lower, _variables(n, settings))}), "")
    variable = _variables(name, settings)[0] if name else said
    secret = bool(name) and settings.model_fields[name].annotation is SecretStr
    value = "" if secret else f" is {error['input']!r}:"
    what = str(error["msg"]).removeprefix("Value error, ")
    return f"{variable}{value} {what[:1].lower()}{what[1:]}; `ml-assets settings` lists all with their meaning"
