"""The account with which runs and people work on MLflow's server: its own, and no administrator's.

    python -m ml_assets.registry.account     makes it in the server's database, or gives it the password of now

The migration of a cluster runs it. MLFLOW_AUTH_CONFIG_PATH names the server's basic_auth.ini; who is in the settings.
What the account makes is its own to change; of the rest it may what `default_permission` of that file says.
"""

import sys

from ml_assets.errors import InputError
from ml_assets.settings import Settings


def ensure_account(username: str, password: str) -> str:
    """Make the account, if there is none; else set its password. Return what was done.

    Raises:
        ValueError: there is no name or password, or it is an administrator's name.
    """
    if not username or not password:
        raise InputError(
            "the account on MLflow's server has no name or no password; set ML_ASSETS_MLFLOW_USERNAME and "
            "ML_ASSETS_MLFLOW_PASSWORD (on a cluster, the secret ml-assets-mlflow-client)"
        )
    from mlflow.server.auth.config import read_auth_config
    from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore

    config = read_auth_config()
    store = SqlAlchemyStore()
    store.init_db(config.database_uri)  # type: ignore[no-untyped-call]
    known = store.has_user(username)
    if username == config.admin_username or (known and store.get_user(username).is_admin):
        raise InputError(
            f"{username!r} is an administrator of MLflow's server, with whose right a run could replace every model; "
            "name another account in ML_ASSETS_MLFLOW_USERNAME (on a cluster, in the secret ml-assets-mlflow-client)"
        )
    if not known:
        store.create_user(username, password, is_admin=False)
        return f"made the account {username}"
    if store.authenticate_user(username, password):
        return f"the account {username} is there"
    store.update_user(username, password=password)
    return f"gave the account {username} its new password"


def main() -> None:
    """Make the account that the settings name."""
    settings = Settings()
    try:
        said = ensure_account(settings.mlflow_username, settings.mlflow_password.get_secret_value())
    except ValueError as error:
        sys.exit(f"error: {error}")
    sys.stdout.write(f"{said}\n")


if __name__ == "__main__":
    main()
