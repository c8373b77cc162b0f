"""Avro in Confluent's wire format, its schemas from a registry. Needs the extra `avro`."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

from ml_assets.landing.decode import RefusedError

_HEADER = 5  # a zero byte and the schema's id
# Answers that say "not now" or "not you"; any other 4xx says that there is no such schema, which waiting does not mend.
_OUTAGE = frozenset({401, 403, 407, 408, 429})


class RegistryRecords:
    """Reads Avro values with the schema that each was written with. A schema is asked for once."""

    def __init__(self, url: str) -> None:
        """Use the registry at this URL.

        Raises:
            ModuleNotFoundError: the extra `avro` is not installed.
        """
        try:
            import fastavro
            from confluent_kafka.schema_registry import SchemaRegistryClient
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"events in Avro need the extra: `pip install 'ml_assets[avro]'` ({error})", name=error.name
            ) from error
        self._fastavro = fastavro
        self._url = url
        # The lander itself goes on trying; the client must not keep it from ending meanwhile.
        self._client = SchemaRegistryClient({"url": url, "timeout": 10, "max.retries": 1})
        self._schemas: dict[int, Any] = {}

    def read(self, value: bytes) -> Mapping[str, Any]:
        """Return the fields of a value.

        Raises:
            RefusedError: there is no such schema, it is not Avro, or the value does not follow it.
            OSError: the registry does not answer: an outage, and no reason to give up a message.
        """
        schema = self._schema(int.from_bytes(value[1:_HEADER], "big"))
        try:
            found = self._fastavro.schemaless_reader(io.BytesIO(value[_HEADER:]), schema, None)
        except Exception as error:  # fastavro raises whatever the bytes lead it to
            raise RefusedError(f"Avro cannot be read: {type(error).__name__}: {error}") from error
        if not isinstance(found, dict):
            raise RefusedError(f"the Avro value is a {type(found).__name__}, not a record")
        return found

    def _schema(self, number: int) -> Any:
        if number not in self._schemas:
            try:
                text = self._client.get_schema(number).schema_str
            except Exception as error:  # the registry's own, or whatever its HTTP client met
                status = getattr(error, "http_status_code", None) or 0
                if 400 <= status < 500 and status not in _OUTAGE:
                    raise RefusedError(f"the schema registry has no Avro schema {number}") from error
                raise OSError(f"the schema registry {self._url} does not do its work: {error}") from error
            try:
                self._schemas[number] = self._fastavro.parse_schema(json.loads(text or ""))
            except Exception as error:  # of another kind, or with references: fastavro raises what it is led to
                raise RefusedError(f"schema {number} is no Avro schema that stands alone: {error}") from error
        return self._schemas[number]
