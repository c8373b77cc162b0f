"""The settings of S3 and GCS, as options of the libraries that reach them: deltalake, fsspec and MLflow.

Keys are passed on, never logged. Without keys each library looks for credentials itself, which pods with a web identity
token (IRSA), Workload Identity or an instance role need.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_assets.settings import Settings

# Retries of a request that an overloaded store refuses: after about a minute the run fails and is retried.
_RETRIES = 8
_RETRY_SECONDS = 60


def is_s3(uri: str) -> bool:
    """Return whether an address is on S3."""
    return uri.startswith(("s3://", "s3a://"))


def is_gcs(uri: str) -> bool:
    """Return whether an address is on Google Cloud Storage."""
    return uri.startswith("gs://")


def lake_options(settings: Settings) -> dict[str, str]:
    """Return the storage options with which deltalake reaches the lake; none for a folder.

    Commits are `PUT If-None-Match`, on GCS `x-goog-if-generation-match: 0`: if two writers write the same version, the
    store accepts one.
    """
    if is_s3(settings.lake_uri):
        named = _s3_lake_options(settings)
    elif is_gcs(settings.lake_uri):
        named = _gcs_lake_options(settings)
    else:
        return {}
    named |= {
        "max_retries": str(_RETRIES),
        "retry_timeout": f"{_RETRY_SECONDS}s",
        "backoff_config.init_backoff": "100ms",
        "backoff_config.max_backoff": "10s",
    }
    return {name: value for name, value in named.items() if value}


def _s3_lake_options(settings: Settings) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": settings.s3_endpoint,
        "AWS_ALLOW_HTTP": "true" if settings.s3_endpoint.startswith("http://") else "",
        "AWS_REGION": settings.s3_region,
        "AWS_ACCESS_KEY_ID": settings.s3_access_key.get_secret_value(),
        "AWS_SECRET_ACCESS_KEY": settings.s3_secret_key.get_secret_value(),
        "aws_server_side_encryption": settings.s3_encryption,
        "aws_sse_kms_key_id": settings.s3_kms_key,
        "aws_conditional_put": "etag",
    }


def _gcs_lake_options(settings: Settings) -> dict[str, str]:
    if not settings.gcs_endpoint:
        return {}
    # object_store takes another address from nowhere but the file of an account.
    account = {"gcs_base_url": settings.gcs_endpoint.rstrip("/"), "disable_oauth": True}
    account |= dict.fromkeys(("client_email", "private_key", "private_key_id"), "")
    return {"google_service_account_key": json.dumps(account), "allow_http": "true"}


def filesystem_options(settings: Settings) -> dict[str, Any]:
    """Return the options with which fsspec's `s3` file system, s3fs, reaches S3. Listings are not cached."""
    client = {"endpoint_url": settings.s3_endpoint, "region_name": settings.s3_region}
    named = {
        "key": settings.s3_access_key.get_secret_value(),
        "secret": settings.s3_secret_key.get_secret_value(),
        "client_kwargs": {name: value for name, value in client.items() if value},
        "s3_additional_kwargs": upload_options(settings),
    }
    return {
        "config_kwargs": {"retries": {"max_attempts": _RETRIES, "mode": "adaptive"}},
        "use_listings_cache": False,
        **{name: value for name, value in named.items() if value},
    }


def gcs_filesystem_options(settings: Settings) -> dict[str, Any]:
    """Return the options with which fsspec's `gs` file system, gcsfs, reaches GCS. Listings are not cached."""
    # Else it asks each bucket by gRPC of which kind it is, and waits a minute where nothing answers.
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    # An emulator asks for no login; elsewhere it is that of the pod or machine.
    where, login = (settings.gcs_endpoint, "anon") if settings.gcs_endpoint else (None, "google_default")
    return {"endpoint_url": where, "token": login, "use_listings_cache": False}


def filesystem_of(root: str, settings: Settings) -> tuple[Any, str]:
    """Return the file system of an address, and the address as that names it."""
    import fsspec

    options = filesystem_options(settings) if is_s3(root) else gcs_filesystem_options(settings) if is_gcs(root) else {}
    store, path = fsspec.core.url_to_fs(root, **options)
    return store, str(path)


def write_files(folder: str, files: Mapping[str, bytes]) -> None:
    """Write files below a folder or a prefix of an object store, each whole or not at all.

    What is there of that name is replaced; the same bytes are not written again.
    """
    import fsspec

    store, base = fsspec.core.url_to_fs(folder.rstrip("/"))
    on_disk = not (is_s3(folder) or is_gcs(folder))
    for name, content in files.items():
        path = f"{base}/{name}"
        if on_disk:
            store.makedirs(store._parent(path), exist_ok=True)
        try:
            if store.cat_file(path) == content:
                continue
        except FileNotFoundError:
            pass
        if not on_disk:
            store.pipe_file(path, content)  # an object is shown when it is whole
            continue
        partial = f"{path}.partial"
        store.pipe_file(partial, content)
        Path(partial).replace(path)


def read_file(uri: str) -> bytes:
    """Return the content of a file or object."""
    import fsspec

    store, path = fsspec.core.url_to_fs(uri)
    content: bytes = store.cat_file(path)
    return content


def upload_options(settings: Settings) -> dict[str, str]:
    """Return the options of each upload: encryption at rest, if the settings ask for it."""
    if not settings.s3_encryption:
        return {}
    key = {"SSEKMSKeyId": settings.s3_kms_key} if settings.s3_kms_key else {}
    return {"ServerSideEncryption": settings.s3_encryption, **key}


def use_object_stores(settings: Settings) -> None:
    """Configure S3 and GCS in this process for fsspec, and for MLflow where it writes artifacts itself.

    fsspec keeps options per protocol, so code that opens an address needs to know nothing about a store. MLflow reads
    only the environment.
    """
    roots = (
        settings.lake_uri,
        settings.reference_uri,
        settings.artifact_uri,
        settings.report_uri,
        settings.connect_root,
    )
    made = {
        "s3": filesystem_options(settings) if any(map(is_s3, roots)) else None,
        "gs": gcs_filesystem_options(settings) if any(map(is_gcs, roots)) else None,
    }
    if used := {protocol: options for protocol, options in made.items() if options is not None}:
        from fsspec.config import conf

        conf.update(used)
        os.environ.update(mlflow_environment(settings))


def mlflow_environment(settings: Settings) -> Mapping[str, str]:
    """Return the variables with which MLflow's own client reaches the artifacts; none if they are in a folder."""
    if is_gcs(settings.artifact_uri):
        return {"STORAGE_EMULATOR_HOST": settings.gcs_endpoint} if settings.gcs_endpoint else {}
    if not is_s3(settings.artifact_uri):
        return {}
    named = {
        "MLFLOW_S3_ENDPOINT_URL": settings.s3_endpoint,
        "AWS_DEFAULT_REGION": settings.s3_region,
        "AWS_ACCESS_KEY_ID": settings.s3_access_key.get_secret_value(),
        "AWS_SECRET_ACCESS_KEY": settings.s3_secret_key.get_secret_value(),
        "MLFLOW_S3_UPLOAD_EXTRA_ARGS": json.dumps(upload_options(settings)) if settings.s3_encryption else "",
    }
    return {name: value for name, value in named.items() if value}
