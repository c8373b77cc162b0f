"""From the bytes of a message to an event of its contract, or to the reason why it is refused.

What a contract accepts, beyond its types:

- a missing optional field, and a new field that the contract does not know yet: readers and writers are not
  released at the same moment;
- not a renamed field. An unknown field beside a missing one is taken for a rename, even of an optional field, since
  that would silently lose its values. A message that declares a newer schema version than the contract's (header
  `schema-version`) is trusted to have added and not renamed.

JSON is always understood. A value that starts with the zero byte of Confluent's wire format is Avro, its schema
taken from a registry, and held against the same contract.
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import msgspec

from ml_assets.contracts import Event
from ml_assets.errors import InputError

VERSION_HEADER = "schema-version"
_HIGHEST_VERSION = 2**31 - 1
_LONGEST_REASON = 300
_MOST_NAMES, _LONGEST_NAME = 3, 30
_AVRO = b"\x00"
# A value nested deeper than the stack is refused too: it would end every lander that comes to it.
_NOT_DECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class RefusedError(InputError):
    """A message breaks its contract; the text, `in_short`, is the reason that its dead letter carries."""

    def __init__(self, reason: str) -> None:
        super().__init__(in_short(reason))


class Records(Protocol):
    """Turns a value in a binary encoding into a mapping of fields."""

    def read(self, value: bytes) -> Mapping[str, Any]:
        """Return the fields.

        Raises:
            RefusedError: the value is not in the encoding that it claims.
        """
        ...


class Decoder:
    """Decodes the messages of one contract. `records` reads Avro; without it Avro is refused."""

    def __init__(self, contract: type[Event], records: Records | None = None) -> None:
        self._contract = contract
        self._records = records
        self._names = frozenset(contract.__struct_encode_fields__)
        # The same contract, but it refuses unknown fields: the usual message has none and takes the fast path.
        strict: type[Event] = types.new_class(
            contract.__name__, (contract,), {"forbid_unknown_fields": True, "frozen": True, "kw_only": True}
        )
        self._strict: msgspec.json.Decoder[Event] = msgspec.json.Decoder(strict)
        self._lenient = msgspec.json.Decoder(contract)
        self._fields = msgspec.json.Decoder(dict[str, msgspec.Raw])

    def decode(self, value: bytes | None, version: int | None = None) -> Event:
        """Return the event.

        Raises:
            RefusedError: the value breaks the contract.
        """
        if not value:
            raise RefusedError("Input data was truncated: the message is empty")
        if value[:1] == _AVRO:
            return self._from_avro(value, version)
        try:
            return self._strict.decode(value)
        except _NOT_DECODABLE:
            try:
                event = self._lenient.decode(value)
                fields = self._fields.decode(value)
            except _NOT_DECODABLE as error:
                raise RefusedError(str(error)) from error
        self._refuse_renamed(fields, version)
        return event

    def _from_avro(self, value: bytes, version: int | None) -> Event:
        if self._records is None:
            raise RefusedError(
                "the message is Avro and no schema registry is configured; set ML_ASSETS_SCHEMA_REGISTRY_URL and replay"
            )
        fields = self._records.read(value)
        try:
            event = msgspec.convert(fields, self._contract)
        except (msgspec.ValidationError, RecursionError) as error:
            raise RefusedError(str(error)) from error
        self._refuse_renamed(fields, version)
        return event

    def _refuse_renamed(self, fields: Mapping[str, Any], version: int | None) -> None:
        unknown, missing = fields.keys() - self._names, self._names - fields.keys()
        if unknown and missing and (version is None or version <= self._contract.schema_version):
            raise RefusedError(
                f"Object contains unknown field {_list(unknown)} and lacks {_list(missing)}: taken for a rename. A "
                f"message with new fields declares a schema version above {self._contract.schema_version}"
            )


def declared_version(headers: Any) -> int | None:
    """Return the schema version that a message's headers declare, or None; what is no number declares nothing.

    Raises:
        RefusedError: no version can be so high, or the headers declare several.
    """
    declared: set[int] = set()
    for name, value in headers or ():
        if name == VERSION_HEADER and isinstance(value, bytes) and value.isdigit():
            # Not made a number before its length is known: Python refuses one of 5,000 digits.
            if len(value) > len(str(_HIGHEST_VERSION)) or int(value) > _HIGHEST_VERSION:
                raise RefusedError(f"the header {VERSION_HEADER} is above {_HIGHEST_VERSION}: {value[:20].decode()}")
            declared.add(int(value))
    if len(declared) > 1:
        raise RefusedError(f"the message has several headers {VERSION_HEADER}: {', '.join(map(str, sorted(declared)))}")
    return next(iter(declared), None)


def in_short(reason: str) -> str:
    """Return a reason for tables, metadata and logs: text from a message is cut and escaped."""
    # Cut before anything else is done with it: a message can be many megabytes.
    cut = reason if len(reason) <= _LONGEST_REASON else f"{reason[: _LONGEST_REASON - 1]}…"
    return cut if cut.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in cut)


def _list(names: Iterable[str]) -> str:
    """Return a few of the names as text: a message can have any number of fields, with names of any length."""
    ranked = sorted(names)
    shown = ", ".join(f"`{name[:_LONGEST_NAME]}`" for name in ranked[:_MOST_NAMES])
    return shown if len(ranked) <= _MOST_NAMES else f"{shown} and {len(ranked) - _MOST_NAMES:,} more"
