"""Tokens of AWS: addresses signed with the pod's role, or whatever else boto finds, which go nowhere but to the server.

They are made here without a request; only the role's own credentials are fetched, and fetched again before they end.
"""

from __future__ import annotations

import os
import re
import time
from base64 import urlsafe_b64encode
from functools import cache
from typing import Any
from urllib.parse import urlencode

from ml_assets.errors import InputError, StateError

# As long as Amazon RDS and MSK take them; a connection that is open stays open.
_SECONDS = 900


def rds_token(host: str, port: int, user: str) -> str:
    """Return the password with which a database user of Amazon RDS that has the role `rds_iam` logs in.

    Source: AWS, "Connecting to your DB instance using IAM authentication". `host` must be the instance's own name, and
    the connection TLS.

    Raises:
        InputError: it is not known in which region the server is.
        StateError: this process has no credentials of AWS.
    """
    region = found[1] if (found := re.search(r"\.([a-z0-9-]+)\.rds\.amazonaws\.com", host)) else aws_region()
    query = urlencode({"Action": "connect", "DBUser": user})
    return _presigned(f"https://{host}:{port}/?{query}", "rds-db", region).removeprefix("https://")


def msk_token() -> tuple[str, float]:
    """Return the token with which a client of Amazon MSK logs in by OAUTHBEARER, and when it ends (epoch seconds).

    Source: AWS, aws-msk-iam-sasl-signer; the token is the address in base64url, without padding.

    Raises:
        InputError: it is not known in which region the cluster is.
        StateError: this process has no credentials of AWS.
    """
    region = aws_region()
    ends = time.time() + _SECONDS
    query = urlencode({"Action": "kafka-cluster:Connect"})
    signed = _presigned(f"https://kafka.{region}.amazonaws.com/?{query}", "kafka-cluster", region)
    named = f"{signed}&{urlencode({'User-Agent': 'ml-assets'})}"  # MSK wants to know who signed
    return urlsafe_b64encode(named.encode()).decode().rstrip("="), ends


def aws_region() -> str:
    """Return the region of this process.

    Raises:
        InputError: no variable says so.
    """
    for variable in ("ML_ASSETS_S3_REGION", "AWS_REGION", "AWS_DEFAULT_REGION"):
        if region := os.environ.get(variable):
            return region
    raise InputError("the region of AWS is not known; set AWS_REGION, as eu-central-1")


def _presigned(url: str, service: str, region: str) -> str:
    from botocore.auth import SigV4QueryAuth
    from botocore.awsrequest import AWSRequest

    credentials = _session().get_credentials()
    if credentials is None:
        raise StateError(
            "this process has no credentials of AWS to log in with: on EKS annotate its service account with "
            "eks.amazonaws.com/role-arn, elsewhere set AWS_PROFILE or AWS_ACCESS_KEY_ID"
        )
    request = AWSRequest("GET", url)
    SigV4QueryAuth(credentials.get_frozen_credentials(), service, region, _SECONDS).add_auth(request)
    return str(request.url)


@cache
def _session() -> Any:
    """Return the session of the process: it keeps the role's credentials, and fetches new ones before they end."""
    from botocore.session import get_session

    return get_session()
