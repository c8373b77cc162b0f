"""Backup and restore of everything that the project stores: databases, lake, artifacts, reference files.

Rows in PostgreSQL refer to runs and artifacts of MLflow and to versions of the lake; nothing refers back. So the
databases are dumped first, as they were at one moment (`postgres`), and what they refer to is copied after
(`objects`): it is still there, since the lake keeps what models and predictions were made from.

It knows only the names of use cases, and nothing about Dagster.
"""

from ml_assets.backup.platform import Backup, Places, backup, backups, restore

__all__ = ["Backup", "Places", "backup", "backups", "restore"]
