"""Tokens of Google Cloud: what the metadata server gives to the pod's service account, by Workload Identity."""

from __future__ import annotations

import threading
from functools import cache
from typing import Any

from ml_assets.errors import StateError

_SQL_LOGIN = "https://www.googleapis.com/auth/sqlservice.login"
_turn = threading.Lock()


def cloud_sql_login() -> tuple[str, str]:
    """Return user and password with which this process logs in to Cloud SQL; the password is valid for up to an hour.

    Source: Google, "Log in using IAM database authentication". The user is the service account, without
    `.gserviceaccount.com`; empty if the credentials name none, as those of a person.

    Raises:
        StateError: this process has no credentials of Google Cloud, or gets no token for them.
    """
    from google.auth.exceptions import GoogleAuthError
    from google.auth.transport.requests import Request

    try:
        with _turn:
            credentials = _credentials()
            if not credentials.valid:
                credentials.refresh(Request())
            account = getattr(credentials, "service_account_email", "")
            return str(account).removesuffix(".gserviceaccount.com"), str(credentials.token)
    except GoogleAuthError as error:
        raise StateError(
            f"this process cannot log in with a service account of Google Cloud: {error}. On GKE bind its Kubernetes "
            "service account to one (Workload Identity), elsewhere set GOOGLE_APPLICATION_CREDENTIALS"
        ) from error


@cache
def _credentials() -> Any:
    """Return the credentials of the process, which keep their token."""
    from google.auth import default

    found, _ = default(scopes=[_SQL_LOGIN])
    return found
