"""Events in Avro, their schemas from a registry: the same contract, the same dead letters."""

import io
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import fastavro
import pytest

from ml_assets.landing.avro import RegistryRecords
from ml_assets.landing.decode import Decoder, RefusedError
from ml_assets_tests.landing.conftest import Moved
from ml_assets_tests.landing.messages import NINE, body

FIELDS = {
    "event_id": "string",
    "event_time": {"type": "long", "logicalType": "timestamp-micros"},
    "isin": "string",
    "side": {"type": "enum", "name": "Side", "symbols": ["DELI", "RECE"]},
    "quantity": "long",
}
EVENT = {"event_id": "1", "event_time": NINE, "isin": "US0378331005", "side": "DELI", "quantity": 5}


def schema(**changes):
    kinds = {name: kind for name, kind in {**FIELDS, **changes}.items() if kind is not None}
    return {"type": "record", "name": "Moved", "fields": [{"name": n, "type": kind} for n, kind in kinds.items()]}


class Registry:
    """The one route of Confluent's schema registry that a reader needs, over HTTP."""

    def __init__(self):
        self.schemas = {}
        self.asked = []
        self.down = False
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                number = int(re.match(r"/schemas/ids/(\d+)", self.path)[1])
                registry.asked.append(number)
                if registry.down:
                    self._answer(503, {"error_code": 50300, "message": "down"})
                elif number in registry.schemas:
                    self._answer(200, {"schema": json.dumps(registry.schemas[number]), "schemaType": "AVRO"})
                else:
                    self._answer(404, {"error_code": 40403, "message": "Schema not found"})

            def _answer(self, status, content):
                payload = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def encode(self, number, described, values):
        """A value in the wire format, its schema registered under this number."""
        self.schemas[number] = described
        out = io.BytesIO()
        fastavro.schemaless_writer(out, fastavro.parse_schema(described), values)
        return b"\x00" + number.to_bytes(4, "big") + out.getvalue()


@pytest.fixture
def registry():
    made = Registry()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def decoder(registry):
    return Decoder(Moved, RegistryRecords(registry.url))


def test_avro_and_json_of_one_event_are_the_same(registry, decoder):
    assert decoder.decode(registry.encode(7, schema(), EVENT)) == Moved(**EVENT)
    assert decoder.decode(body(1)).quantity == 5


def test_a_schema_is_asked_for_once(registry, decoder):
    for _ in range(3):
        decoder.decode(registry.encode(7, schema(), EVENT))
    assert registry.asked == [7]


def test_a_new_field_is_accepted_and_a_removed_or_retyped_one_is_refused(registry, decoder):
    added = registry.encode(8, schema(uti="string"), {**EVENT, "uti": "X"})
    assert decoder.decode(added).isin == "US0378331005"
    removed = registry.encode(9, schema(isin=None), {n: v for n, v in EVENT.items() if n != "isin"})
    with pytest.raises(RefusedError, match="missing required field `isin`"):
        decoder.decode(removed)
    retyped = registry.encode(10, schema(quantity="string"), {**EVENT, "quantity": "5"})
    with pytest.raises(RefusedError, match="Expected `int`, got `str`"):
        decoder.decode(retyped)


def test_bytes_that_do_not_follow_their_schema_are_refused(registry, decoder):
    with pytest.raises(RefusedError, match="Avro cannot be read"):
        decoder.decode(registry.encode(7, schema(), EVENT)[:8])


def test_an_unknown_schema_is_refused_by_its_number(decoder):
    with pytest.raises(RefusedError, match="no Avro schema 99"):
        decoder.decode(b"\x00" + (99).to_bytes(4, "big") + b"x")


def test_a_registry_that_is_down_is_an_outage_and_no_reason_to_refuse(registry, decoder):
    """Guards: while the registry was away for a minute, every message would have become a dead letter."""
    registry.down = True
    value = registry.encode(7, schema(), EVENT)
    with pytest.raises(OSError, match="schema registry"):
        decoder.decode(value)
    registry.down = False
    assert decoder.decode(value).isin == "US0378331005"


def test_avro_without_a_registry_says_what_to_set():
    with pytest.raises(RefusedError, match="ML_ASSETS_SCHEMA_REGISTRY_URL"):
        Decoder(Moved).decode(b"\x00\x00\x00\x00\x07x")
