"""What runs print, kept in the object store of the settings: one manager for `s3://` and `gs://`.

Dagster's own are one a cloud, and that for Google comes with BigQuery and a login library that is no longer kept.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Self

from dagster import Field, IntSource, StringSource
from dagster._core.storage.cloud_storage_compute_log_manager import (
    PollingComputeLogSubscriptionManager,
    TruncatingCloudStorageComputeLogManager,
)
from dagster._core.storage.compute_log_manager import CapturedLogSubscription, ComputeIOType
from dagster._core.storage.local_compute_log_manager import IO_TYPE_EXTENSION, LocalComputeLogManager
from dagster._serdes import ConfigurableClass, ConfigurableClassData

from ml_assets.object_store import filesystem_of
from ml_assets.settings import Settings

_EVERY_SECONDS = 30


class StoredLogs(TruncatingCloudStorageComputeLogManager, ConfigurableClass):
    """Keeps logs below `root`, an `s3://` or `gs://` prefix; `local_dir` holds what is being written."""

    def __init__(
        self,
        root: str,
        local_dir: str,
        upload_interval: int = _EVERY_SECONDS,
        inst_data: ConfigurableClassData | None = None,
    ) -> None:
        self._store, base = filesystem_of(root, Settings())
        self._base = f"{base.rstrip('/')}/storage"
        self._scheme = root.partition("://")[0]
        self._local = LocalComputeLogManager(local_dir)
        self._subscriptions = PollingComputeLogSubscriptionManager(self)  # type: ignore[no-untyped-call]
        self._upload_interval, self._inst_data = upload_interval, inst_data
        super().__init__()  # type: ignore[no-untyped-call]

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        """How dagster.yaml names it."""
        return self._inst_data

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """What dagster.yaml may say."""
        return {
            "root": StringSource,
            "local_dir": StringSource,
            "upload_interval": Field(IntSource, is_required=False, default_value=_EVERY_SECONDS),
        }

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:
        """Return the manager that dagster.yaml describes."""
        return cls(inst_data=inst_data, **config_value)

    @property
    def local_manager(self) -> LocalComputeLogManager:
        """What captures the output of this process."""
        return self._local

    @property
    def upload_interval(self) -> int | None:
        """Seconds between two uploads of a log that is being written; None: only when it is done."""
        return self._upload_interval or None

    def delete_logs(self, log_key: Sequence[str] | None = None, prefix: Sequence[str] | None = None) -> None:
        """Delete the logs of a key, or of all keys that begin with `prefix`."""
        self._local.delete_logs(log_key=log_key, prefix=prefix)
        if log_key:
            gone = [self._path(log_key, kind, partial) for kind in ComputeIOType for partial in (False, True)]
            gone = [path for path in gone if self._store.exists(path)]
        else:
            gone = self._store.find("/".join([self._base, *(prefix or ()), ""]))
        if gone:
            self._store.rm(gone)

    def download_url_for_type(self, log_key: Sequence[str], io_type: ComputeIOType) -> None:
        """Return no address: the UI shows logs itself, and people have no key of the store."""

    def display_path_for_type(self, log_key: Sequence[str], io_type: ComputeIOType) -> str | None:  # type: ignore[override]
        """Return where a complete log is."""
        return f"{self._scheme}://{self._path(log_key, io_type)}" if self.is_capture_complete(log_key) else None

    def cloud_storage_has_logs(self, log_key: Sequence[str], io_type: ComputeIOType, partial: bool = False) -> bool:
        """Return whether the store has a log."""
        return bool(self._store.exists(self._path(log_key, io_type, partial)))

    def _upload_file_obj(
        self, data: IO[bytes], log_key: Sequence[str], io_type: ComputeIOType, partial: bool = False
    ) -> None:
        content = data.read()  # at most what Dagster cuts logs to
        if content or not partial:  # an empty log, too, tells that a run is done
            self._store.pipe_file(self._path(log_key, io_type, partial), content)

    def download_from_cloud_storage(
        self, log_key: Sequence[str], io_type: ComputeIOType, partial: bool = False
    ) -> None:
        """Fetch a log to where this process keeps its own."""
        path = Path(self._local.get_captured_local_path(log_key, IO_TYPE_EXTENSION[io_type], partial=partial))
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._store.open(self._path(log_key, io_type, partial), "rb") as stored, path.open("wb") as local:
            shutil.copyfileobj(stored, local)

    def get_log_keys_for_log_key_prefix(
        self, log_key_prefix: Sequence[str], io_type: ComputeIOType
    ) -> Sequence[list[str]]:
        """Return the keys below a prefix that have a log of a kind."""
        ending = f".{IO_TYPE_EXTENSION[io_type]}"
        found = self._store.find("/".join([self._base, *log_key_prefix, ""]))
        names = sorted(path.rpartition("/")[2] for path in found if path.endswith(ending))
        return [[*log_key_prefix, name.removesuffix(ending)] for name in names]

    def on_subscribe(self, subscription: CapturedLogSubscription) -> None:
        """Tell a page about a log as it grows."""
        self._subscriptions.add_subscription(subscription)

    def on_unsubscribe(self, subscription: CapturedLogSubscription) -> None:
        """Stop telling it."""
        self._subscriptions.remove_subscription(subscription)

    def dispose(self) -> None:
        """End the threads."""
        self._subscriptions.dispose()
        self._local.dispose()

    def _path(self, log_key: Sequence[str], io_type: ComputeIOType, partial: bool = False) -> str:
        name = f"{'/'.join(log_key)}.{IO_TYPE_EXTENSION[io_type]}"
        return f"{self._base}/{name}{'.partial' if partial else ''}"
