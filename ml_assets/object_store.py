"""S3 as the settings name it, in the words of the libraries that reach it: deltalake, fsspec and MLflow.

Keys are passed on, never logged. Without keys each library looks for credentials itself, as pods with a web identity
token or an instance role need.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ml_assets.settings import Settings

# Of a request that an overloaded store refuses: about a minute of backing off, then the run fails and is retried.
_RETRIES = 8
_RETRY_SECONDS = 60


def is_s3(uri: str) -> bool:
    """Return whether an address lies on S3."""
    return uri.startswith(("s3://", "s3a://"))


def lake_options(settings: Settings) -> dict[str, str]:
    """Return the storage options with which deltalake reaches the lake; none for a folder.

    Commits are `PUT If-None-Match`: of two writers of one version the store lets one through.
    """
    if not is_s3(settings.lake_uri):
        return {}
    named = {
        "AWS_ENDPOINT_URL": settings.s3_endpoint,
        "AWS_ALLOW_HTTP": "true" if settings.s3_endpoint.startswith("http://") else "",
        "AWS_REGION": settings.s3_region,
        "AWS_ACCESS_KEY_ID": settings.s3_access_key.get_secret_value(),
        "AWS_SECRET_ACCESS_KEY": settings.s3_secret_key.get_secret_value(),
        "aws_server_side_encryption": settings.s3_encryption,
        "aws_sse_kms_key_id": settings.s3_kms_key,
        "aws_conditional_put": "etag",
        "max_retries": str(_RETRIES),
        "retry_timeout": f"{_RETRY_SECONDS}s",
        "backoff_config.init_backoff": "100ms",
        "backoff_config.max_backoff": "10s",
    }
    return {name: value for name, value in named.items() if value}


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


def upload_options(settings: Settings) -> dict[str, str]:
    """Return what each upload asks of S3: encryption at rest, if the settings want it."""
    if not settings.s3_encryption:
        return {}
    key = {"SSEKMSKeyId": settings.s3_kms_key} if settings.s3_kms_key else {}
    return {"ServerSideEncryption": settings.s3_encryption, **key}


def use_s3(settings: Settings) -> None:
    """Make fsspec, and MLflow where it writes artifacts itself, reach S3 as the settings say, in this process.

    fsspec has options a protocol, so that code that opens an address needs to know nothing of S3. MLflow reads only
    the environment.
    """
    if not any(map(is_s3, (settings.lake_uri, settings.reference_uri, settings.artifact_uri, settings.connect_root))):
        return
    from fsspec.config import conf

    conf["s3"] = filesystem_options(settings)
    os.environ.update(mlflow_environment(settings))


def mlflow_environment(settings: Settings) -> Mapping[str, str]:
    """Return the variables with which MLflow's own S3 client reaches the artifacts; none if they are elsewhere."""
    if not is_s3(settings.artifact_uri):
        return {}
    import json

    named = {
        "MLFLOW_S3_ENDPOINT_URL": settings.s3_endpoint,
        "AWS_DEFAULT_REGION": settings.s3_region,
        "AWS_ACCESS_KEY_ID": settings.s3_access_key.get_secret_value(),
        "AWS_SECRET_ACCESS_KEY": settings.s3_secret_key.get_secret_value(),
        "MLFLOW_S3_UPLOAD_EXTRA_ARGS": json.dumps(upload_options(settings)) if settings.s3_encryption else "",
    }
    return {name: value for name, value in named.items() if value}
