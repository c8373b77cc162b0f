"""What a contract accepts and what it sends to the dead letters."""

import contextlib
from datetime import datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_assets.contracts import Event
from ml_assets.landing.decode import Decoder, RefusedError, declared_version
from ml_assets_tests.landing.messages import NINE, body


class Settled(Event, frozen=True, kw_only=True):
    schema_version = 3
    event_time: datetime
    isin: str
    side: str
    quantity: int
    venue: str | None = None


DECODER = Decoder(Settled)


def without(*names):
    fields = msgspec.json.decode(body(1, venue="XETR"))
    return {name: value for name, value in fields.items() if name not in names}


def encoded(fields):
    return msgspec.json.encode(fields)


def test_a_missing_optional_field_is_accepted():
    assert DECODER.decode(encoded(without("venue"))).venue is None


def test_a_new_field_is_accepted():
    assert DECODER.decode(encoded({**without(), "uti": "X"})).isin == "US0378331005"


@pytest.mark.parametrize("name", ["isin", "side", "quantity", "event_id", "event_time"])
def test_a_removed_field_is_refused_by_its_name(name):
    with pytest.raises(RefusedError, match=f"missing required field `{name}`"):
        DECODER.decode(encoded(without(name)))


@pytest.mark.parametrize("name", ["isin", "quantity", "venue"])
def test_a_renamed_field_is_refused_even_an_optional_one(name):
    """Guards: a renamed optional field is an unknown one and a missing one; its values would be lost in silence."""
    fields = without(name)
    with pytest.raises(RefusedError, match=f"missing required field `{name}`|lacks `{name}`: taken for a rename"):
        DECODER.decode(encoded({**fields, f"{name}_code": "x"}))


@pytest.mark.parametrize(("name", "value"), [("quantity", "5"), ("isin", 5), ("event_time", "soon"), ("venue", 1)])
def test_a_retyped_field_is_refused(name, value):
    with pytest.raises(RefusedError, match=rf"\$\.{name}"):
        DECODER.decode(encoded({**without(), name: value}))


def test_a_newer_version_is_trusted_to_have_added():
    fields = {**without("venue"), "uti": "X"}
    assert DECODER.decode(encoded(fields), version=4).isin == "US0378331005"
    for version in (None, 2, 3):
        with pytest.raises(RefusedError, match="above 3"):
            DECODER.decode(encoded(fields), version=version)


@pytest.mark.parametrize(
    ("headers", "version"),
    [
        (None, None),
        ([], None),
        ([("trace", b"7")], None),
        ([("schema-version", b"4")], 4),
        ([("schema-version", b"four")], None),
        ([("schema-version", None)], None),
    ],
)
def test_the_version_is_in_the_headers(headers, version):
    assert declared_version(headers) == version


@given(st.binary(max_size=60))
def test_whatever_comes_is_an_event_or_refused(value):
    """Guards: a poison message must become a dead letter and never the end of the lander."""
    with contextlib.suppress(RefusedError):
        assert isinstance(DECODER.decode(value), Event)


@given(st.recursive(st.none() | st.integers() | st.text() | st.floats(allow_nan=False), lambda c: st.lists(c)))
def test_json_that_is_no_object_is_refused(value):
    with pytest.raises(RefusedError):
        DECODER.decode(msgspec.json.encode(value))


def test_event_time_survives():
    assert DECODER.decode(body(1)).event_time == NINE
