"""Logins to PostgreSQL without a password: `?plugin=aws_iam` or `?plugin=gcp_iam` in a URL, as entry points name them.

SQLAlchemy loads such a plugin for whoever opens the URL, so that Dagster and MLflow log in with the pod's role too, and
know nothing of it. A token is asked for with each new connection, and only then.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import URL, CreateEnginePlugin, Engine, event, make_url

from ml_assets.errors import InputError


class TokenLogin(CreateEnginePlugin):
    """Logs each new connection of an engine in with a fresh token."""

    def update_url(self, url: URL) -> URL:
        """Return the URL as it is; SQLAlchemy itself takes the plugin out."""
        return url

    def engine_created(self, engine: Engine) -> None:
        """Listen to the engine's connections."""

        @event.listens_for(engine, "do_connect")
        def log_in(_dialect: Any, _record: Any, _arguments: Any, parameters: dict[str, Any]) -> None:
            host, port, user = (parameters.get(name) for name in ("host", "port", "user"))
            parameters["user"], parameters["password"] = self.login(str(host or ""), int(port or 5432), str(user or ""))

    @staticmethod
    def login(host: str, port: int, user: str) -> tuple[str, str]:
        """Return user and password at a server; `user` is what the URL says, empty if nothing."""
        raise NotImplementedError


class AwsLogin(TokenLogin):
    """The login of Amazon RDS. The URL names the user: the role may be that of several."""

    @staticmethod
    def login(host: str, port: int, user: str) -> tuple[str, str]:
        """Return the user of the URL and a token; see `rds_token`."""
        from ml_assets.cloud.aws import rds_token

        return user, rds_token(host, port, user)


class GcpLogin(TokenLogin):
    """The login of Cloud SQL. A service account is one user, which the URL need not name."""

    @staticmethod
    def login(host: str, port: int, user: str) -> tuple[str, str]:  # noqa: ARG004 - a token is good at each server
        """Return the user and a token; see `cloud_sql_login`."""
        from ml_assets.cloud.gcp import cloud_sql_login

        account, token = cloud_sql_login()
        return user or account, token


_LOGINS: dict[str, type[TokenLogin]] = {"aws_iam": AwsLogin, "gcp_iam": GcpLogin}


def with_password(url: str) -> URL:
    """Return a URL as programs need it that are not SQLAlchemy: with a token in place of a login that it names.

    Raises:
        InputError: the URL names a plugin that is no login.
        StateError: this process has no role to log in with.
    """
    parsed = make_url(url)
    named = parsed.query.get("plugin")
    if named is None:
        return parsed
    if not isinstance(named, str) or named not in _LOGINS:
        raise InputError(f"{parsed!r}: plugin is none of {', '.join(_LOGINS)}")
    user, token = _LOGINS[named].login(parsed.host or "", parsed.port or 5432, parsed.username or "")
    return parsed.difference_update_query(["plugin"]).set(username=user, password=token)
