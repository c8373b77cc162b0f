"""The service on a real socket: a champion of the ledger answers for the open decisions of a lake."""

import json
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import uuid4

import numpy as np
import onnx
import pyarrow.compute as pc
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from ml_assets.learning.scorer import MODEL_FILE, Scorer
from ml_assets.registry.integrity import file_hashes, model_hash
from ml_assets.serving.app import build_app
from ml_assets.serving.around import bearer
from ml_assets.serving.auth import Authoriser, Keys
from ml_assets.serving.limits import RateLimit
from ml_assets.serving.openapi import document
from ml_assets.serving.scoring import STALE_AFTER
from ml_assets.serving.traces import traces_to
from ml_assets_tests.serving.bench import Bench, listening, wait
from ml_assets_tests.serving.filled import MARKET as SMALL_MARKET
from ml_assets_tests.serving.filled import NAME
from ml_assets_tests.serving.test_auth import AUDIENCE, EC, ISSUER, NOW, published, token

MARKET = SMALL_MARKET


@dataclass
class Secured:
    """The same service on another port, where clients need tokens, and have three requests and then one in 100 s."""

    port: int

    def token(self, **claims: Any) -> dict[str, str]:
        return {"authorization": token(scope="*:score *:explain models:read", **claims)}


@pytest.fixture(scope="module")
def secured(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    file = tmp_path_factory.mktemp("keys") / "jwks.json"
    file.write_text(published(EC))
    keys = Keys(str(file))
    keys.refresh()
    let_in = bearer(Authoriser(keys, issuer=ISSUER, audience=AUDIENCE, now=lambda: NOW))
    with listening(build_app(bench.scoring, authorise=let_in, rate=RateLimit(0.01, burst=3), run=False)) as port:
        yield Secured(port)


def test_a_score_is_the_saved_model_s_of_the_live_row(bench: Bench) -> None:
    entities = bench.entities()
    status, said = bench.ask(f"/v1/{NAME}/score", {"entity_ids": [*entities, "NOBODY"]}, {"x-request-id": "mine"})
    assert (status, said["request_id"], said["model"]["version"]) == (200, "mine", 1)
    assert said["refused"] == [{"entity_id": "NOBODY", "reason": "there is no open decision with this id"}]
    table = bench.scoring.state(NAME).table
    expected = Scorer.from_files(bench.models / "run1").score(table.rows)
    assert [one["entity_id"] for one in said["scores"]] == entities
    assert np.abs(np.array([one["probability"] for one in said["scores"]]) - expected).max() < 1e-9
    assert len(expected) > 20
    noted = [one for one in bench.recorder.answers if one.request_id == "mine"]
    assert [one.probability for one in noted] == [one["probability"] for one in said["scores"]]
    assert {(one.model_version, one.stage, one.what_if) for one in noted} == {(1, "champion", False)}
    every = [one.event_id for one in bench.recorder.answers]
    assert len(set(every)) == len(every), "an id tells an answer from any other"


def test_the_stream_is_told_once_what_an_answer_would_say(bench: Bench) -> None:
    """Guards consumers of the stream: each open decision comes once, with the score that a caller gets."""
    _, said = bench.ask(f"/v1/{NAME}/score", {"entity_ids": bench.entities()})
    told = [event for event in bench.changes.kept if event.mlflow_run_id == said["model"]["mlflow_run_id"]]
    assert {event.entity_id: event.probability for event in told} == {
        one["entity_id"]: one["probability"] for one in said["scores"]
    }
    assert len({event.event_id for event in told}) == len(told) == len(said["scores"])


def test_reasons_sum_to_the_log_odds(bench: Bench) -> None:
    status, said = bench.ask(f"/v1/{NAME}/explain", {"entity_ids": bench.entities()[:5]})
    assert status == 200
    assert len(said["scores"]) == 5
    for one in said["scores"]:
        reasons = one["reasons"]
        total = reasons["base"] + sum(reasons["contributions"].values())
        assert total == pytest.approx(np.log(one["probability"] / (1 - one["probability"])), abs=1e-4)


def test_a_what_if_scores_as_if_it_had_been_booked(bench: Bench) -> None:
    """A copy of an open instruction under a new id gets the features of that instruction."""
    table = bench.scoring.state(NAME).table
    plain = table.rows.filter(pc.equal(table.rows["matching_status"], "NONE"))
    plain = plain.filter(pc.equal(plain["on_hold_at"], "NONE"))
    twin = (plain if plain.num_rows else table.rows)["entity_id"][0].as_py()
    rows = bench.events["settlement_instructions"]
    fields = rows.filter(pc.equal(rows["instruction_id"], twin)).to_pylist()[-1]
    wanted = bench.usecase.event("settlement_instructions").contract.__struct_fields__
    booked = {name: str(value) if name.endswith("date") else value for name, value in fields.items() if name in wanted}
    booked["event_time"] = fields["event_time"].isoformat()
    asked = [{"settlement_instructions": {**booked, "instruction_id": f"NEW-{n}", "event_id": f"e{n}"}} for n in (1, 2)]
    status, said = bench.ask(f"/v1/{NAME}/score", {"what_if": asked})
    assert status == 200, said
    assert [one["entity_id"] for one in said["scores"]] == ["NEW-1", "NEW-2"]
    if plain.num_rows:
        _, known = bench.ask(f"/v1/{NAME}/score", {"entity_ids": [twin]})
        assert said["scores"][0]["probability"] == pytest.approx(known["scores"][0]["probability"], abs=1e-9)
    assert bench.ask(f"/v1/{NAME}/score", {"entity_ids": ["NEW-1"]})[1]["scores"] == []


@pytest.mark.parametrize(
    ("path", "body", "status", "field"),
    [
        (f"/v1/{NAME}/score", b"{", 400, None),
        (f"/v1/{NAME}/score", b"\xff", 400, None),
        (f"/v1/{NAME}/score", b'{"what_if": [{"trades": ' + b"[" * 100_000, 400, None),
        (f"/v1/{NAME}/score", [], 422, "$"),
        (f"/v1/{NAME}/score", {}, 422, "$"),
        (f"/v1/{NAME}/score", {"entity_ids": []}, 422, "$.entity_ids"),
        (f"/v1/{NAME}/score", {"entity_ids": ["a", 1]}, 422, "$.entity_ids[1]"),
        (f"/v1/{NAME}/score", {"entity_ids": ["a"] * 10_001}, 422, "$.entity_ids"),
        (f"/v1/{NAME}/score", {"what_if": [{"trades": {"uti": 1}}]}, 422, "$.what_if[0].trades"),
        (f"/v1/{NAME}/score", {"what_if": [{"nothing": {}}]}, 422, "$.what_if[0].nothing"),
        (f"/v1/{NAME}/score", b'{"entity_ids": ["' + b"a" * 3_000_000 + b'"]}', 413, None),
        ("/v1/unknown/score", {"entity_ids": ["a"]}, 404, None),
        (f"/v1/{NAME}/explain", {"entity_ids": ["a"] * 101}, 422, "$.entity_ids"),
    ],
)
def test_an_error_is_a_problem_that_names_the_field(
    bench: Bench, path: str, body: Any, status: int, field: str | None
) -> None:
    found, said = bench.ask(path, body)
    assert (found, said["status"]) == (status, status)
    assert said["_type"] == "application/problem+json"
    assert [one["field"] for one in said.get("errors", [])] == ([field] if field else [])


def head(path: str, *headers: str) -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "host: test", *headers, "", ""]).encode()


def said_to(port: int, *parts: bytes, end: bool = False) -> bytes:
    """Send parts of a request, with `end` no more, and return what comes until the service closes, or has answered."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        for part in parts:
            connection.sendall(part)
        if end:
            connection.shutdown(socket.SHUT_WR)
        return connection.recv(65536)


def test_a_body_that_is_too_long_is_refused_before_it_has_come(bench: Bench) -> None:
    """Guards memory: neither what a header says nor a stream without a length is read to its end."""
    path = f"/v1/{NAME}/score"
    assert b" 413 " in said_to(bench.port, head(path, "content-length: 999999999999")).split(b"\r\n")[0]
    piece = b"%x\r\n%s\r\n" % (65536, b" " * 65536)
    assert b" 413 " in said_to(bench.port, head(path, "transfer-encoding: chunked"), piece * 33).split(b"\r\n")[0]


def test_slow_and_half_closed_clients_take_nobody_s_place(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the two places: a body that never comes is given up, and one that is cut off frees its place at once."""
    path, body = f"/v1/{NAME}/score", json.dumps({"entity_ids": bench.entities()[:1]}).encode()
    cut = head(path, f"content-length: {len(body)}")
    for _ in range(3):
        said_to(bench.port, cut, body[:5], end=True)
    assert bench.ask(path, {"entity_ids": ["a"]})[0] == 200
    monkeypatch.setattr("ml_assets.serving.app._BODY_SECONDS", 0.2)
    assert b" 408 " in said_to(bench.port, cut, body[:5]).split(b"\r\n")[0]
    assert b" 200 " in said_to(bench.port, cut, body[:5], body[5:]).split(b"\r\n")[0]
    assert bench.ask(path, {"entity_ids": ["a"]})[0] == 200


def test_a_path_or_verb_that_there_is_not_is_a_problem_too(bench: Bench) -> None:
    status, said = bench.ask("/v1/nothing")
    assert (status, said["status"], said["_type"]) == (404, 404, "application/problem+json")
    status, said = bench.ask("/health/live", {})
    assert (status, said["status"], said["_type"]) == (405, 405, "application/problem+json")


def test_a_client_that_asks_too_often_is_told_when_to_come_back(bench: Bench, secured: Secured) -> None:
    """Each client has its own bucket; who is refused for its token spends none, and health is always answered."""
    path, body = f"/v1/{NAME}/score", {"entity_ids": ["a"]}
    loop, other = secured.token(sub="loop"), secured.token(sub="other")
    assert [bench.ask(path, body, loop, secured.port)[0] for _ in range(5)] == [200, 200, 200, 429, 429]
    connection = HTTPConnection("127.0.0.1", secured.port, timeout=20)
    connection.request("POST", path, json.dumps(body), loop)
    response = connection.getresponse()
    response.read()
    connection.close()
    assert (response.status, response.getheader("retry-after")) == (429, "100")
    assert bench.ask(path, body, other, secured.port)[0] == 200
    assert bench.ask("/health/live", port=secured.port)[0] == 200


OPERATIONS = [(path, verb) for path, item in document()["paths"].items() for verb in item]


@pytest.mark.hostile
@pytest.mark.parametrize(("path", "verb"), OPERATIONS)
def test_whatever_is_asked_is_answered_as_the_document_says(
    bench: Bench, secured: Secured, path: str, verb: str
) -> None:
    """Guards callers who generate their client: no 5xx, no undocumented status or body, nobody in without a token."""
    schema = schemathesis.openapi.from_dict(document())
    schema.config.update(base_url=f"http://127.0.0.1:{bench.port}")
    needs_token = "security" in document()["paths"][path][verb]

    @settings(max_examples=8 if verb == "post" else 3, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(st.data())
    def ask(data: st.DataObject) -> None:
        case = data.draw(schema[path][verb].as_strategy(generation_mode=mode))
        if "use_case" in case.path_parameters:
            case.path_parameters["use_case"] = data.draw(st.sampled_from([NAME, NAME, NAME, "unknown"]))
        headers = secured.token(sub=uuid4().hex) if access == "a token" else {}
        port = bench.port if access == "a laptop" else secured.port
        answer = case.call(base_url=f"http://127.0.0.1:{port}", headers=headers)
        statuses.add(answer.status_code)
        case.validate_response(answer, headers=headers, checks=(
            not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance,
            response_headers_conformance,
        ))  # fmt: skip

    for access in ("a laptop", "a token", "no token"):
        for mode in GenerationMode if verb == "post" else (GenerationMode.POSITIVE,):
            statuses = set[int]()
            ask()
            if access == "no token" and needs_token:
                assert statuses == {401}
            elif mode is GenerationMode.NEGATIVE:
                assert statuses & {400, 422}
            else:
                assert 200 in statuses


def test_too_many_at_a_time_are_refused_and_health_is_not(bench: Bench) -> None:
    """Two requests whose bodies do not come fill the service."""
    slow = [HTTPConnection("127.0.0.1", bench.port, timeout=30) for _ in range(2)]
    for connection in slow:
        connection.putrequest("POST", f"/v1/{NAME}/score")
        connection.putheader("content-length", "100")
        connection.endheaders(b"{")
    wait(lambda: bench.ask(f"/v1/{NAME}/score", {"entity_ids": ["a"]})[0] == 503, 5)
    assert bench.ask("/health/live")[0] == 200
    assert bench.ask("/health/ready")[0] == 200
    for connection in slow:
        connection.close()
    wait(lambda: bench.ask(f"/v1/{NAME}/score", {"entity_ids": ["a"]})[0] == 200, 30)


def test_a_table_whose_clock_stands_does_not_grow_stale(bench: Bench) -> None:
    """Guards the service on a history that was played again: two minutes after its start it was not ready for ever."""
    served = bench.scoring.served[NAME]
    assert served.made_at is not None
    served.made_at -= 2 * STALE_AFTER.total_seconds()
    wait(lambda: not served.is_stale(), 10)


def test_a_promotion_is_noticed_and_a_bad_model_leaves_the_old_one(bench: Bench) -> None:
    bench.promote(2, "registered")
    bench.promote(2)
    wait(lambda: bench.scoring.state(NAME).model.version == 2)
    _, said = bench.ask("/models")
    (champion,) = said["models"]
    assert (champion["champion"]["version"], champion["champion"]["by"]) == (2, "dagster run 4711")
    model = bench.models / "run1" / "model.onnx"
    good, approved = model.read_bytes(), model_hash(file_hashes(bench.models / "run1"))
    model.write_bytes(good[:-10])
    bench.promote(1, approved=approved)
    wait(lambda: "not those that were approved" in bench.scoring.served[NAME].keeper.trouble)
    assert bench.scoring.state(NAME).model.version == 2
    status, ready = bench.ask("/health/ready")
    assert status == 200
    assert NAME in ready["refused_models"]
    assert ready["alerts_evaluated_at"] is None
    assert "alerts_last_evaluated_timestamp_seconds 0.0" in bench.ask("/metrics")[1]["text"]
    assert 'scoring_model_refused{use_case="settlement_fails"} 1.0' in bench.ask("/metrics")[1]["text"]
    assert bench.ask(f"/v1/{NAME}/score", {"entity_ids": bench.entities()[:1]})[0] == 200
    model.write_bytes(good)
    wait(lambda: not bench.scoring.served[NAME].keeper.trouble)
    wait(lambda: bench.scoring.state(NAME).model.version == 1)  # the table is scored anew before it answers
    state = bench.scoring.state(NAME)
    # After a rollback the scores are those of the version before, to the last digit.
    _, said = bench.ask(f"/v1/{NAME}/score", {"entity_ids": list(state.table.index)})
    expected = Scorer.from_files(bench.models / "run1").score(state.table.rows)
    assert np.abs(np.array([one["probability"] for one in said["scores"]]) - expected).max() < 1e-9


def test_an_artifact_that_was_approved_and_is_no_good_leaves_the_champion(bench: Bench) -> None:
    """Guards hashes that are right of files that are wrong, and weights that lie where no hash reaches."""
    before, good = bench.scoring.state(NAME).model.version, bench.models / "run1"
    elsewhere = onnx.load(good / MODEL_FILE)
    elsewhere.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(1000, np.float32), "more"))
    onnx.external_data_helper.convert_model_to_external_data(elsewhere, location="more.bin", size_threshold=0)
    bad = {
        7: ((good / MODEL_FILE).read_bytes()[:-10], "cannot be opened"),
        8: (b"\x80\x04N.", "cannot be opened"),  # a pickle
        9: (b"", "data in other files"),
    }
    try:
        for version, (content, why) in bad.items():
            run = bench.models / f"run{version}"
            shutil.copytree(good, run)
            shutil.copy(bench.models.parent / "run1.json", bench.models.parent / f"run{version}.json")
            if content:
                (run / MODEL_FILE).write_bytes(content)
            else:
                onnx.save(elsewhere, run / MODEL_FILE)
            bench.promote(version, "registered")
            bench.promote(version)
            keeper = bench.scoring.served[NAME].keeper
            wait(lambda keeper=keeper, version=version: f"version {version}" in keeper.trouble)
            assert why in keeper.trouble
            assert bench.scoring.state(NAME).model.version == before
            assert bench.ask(f"/v1/{NAME}/score", {"entity_ids": bench.entities()[:1]})[0] == 200
    finally:
        bench.promote(before)
        wait(lambda: not bench.scoring.served[NAME].keeper.trouble)


def test_the_document_has_examples_that_are_answered(bench: Bench) -> None:
    _, said = bench.ask("/openapi.json")
    posts = {path: item["post"] for path, item in said["paths"].items() if "post" in item}
    assert len(posts) == 2
    for path, post in posts.items():
        examples = post["requestBody"]["content"]["application/json"]["examples"]
        for example in examples.values():
            status, answer = bench.ask(path.replace("{use_case}", NAME), example["value"])
            assert status == 200, answer
            assert len(answer["refused"]) == 1  # nobody has booked it


@dataclass
class Collector:
    """An OTLP collector: what it was sent."""

    port: int = 0
    spans: list[Span] = field(default_factory=list)

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            assert self.path == "/v1/traces"
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in resource.scope_spans:
                    made.spans.extend(scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made.port = server.server_port
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield made
        server.shutdown()


def test_a_trace_goes_on_through_the_service_and_says_what_it_waited_for(bench: Bench, collector: Collector) -> None:
    post = document()["paths"]["/v1/{use_case}/score"]["post"]
    examples = post["requestBody"]["content"]["application/json"]["examples"]
    (what_if,) = (one["value"] for one in examples.values() if "what_if" in one["value"])
    known = {"entity_ids": bench.entities()[:1]}
    theirs, span = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    traces = traces_to(f"http://127.0.0.1:{collector.port}/")
    with listening(build_app(bench.scoring, traces=traces, run=False)) as port:
        for body in (known, what_if):
            headers = {"traceparent": f"00-{theirs}-{span}-01", "x-request-id": "ours"}
            assert bench.ask(f"/v1/{NAME}/score", body, headers, port)[0] == 200
        assert bench.ask("/health/live", port=port)[0] == 200
        assert bench.ask("/metrics", port=port)[0] == 200
    traces.shutdown()
    assert {one.trace_id.hex() for one in collector.spans} == {theirs}
    requests = collector.named("POST /v1/{use_case}/score")
    assert [one.parent_span_id.hex() for one in requests] == [span, span]
    assert all("ours" in str(one.attributes) and known["entity_ids"][0] not in str(one) for one in requests)
    (waited,) = collector.named("what_if")
    assert waited.parent_span_id == requests[1].span_id
    assert len(collector.spans) == 3


def test_the_service_loads_nothing_of_training() -> None:
    """Guards a pod that imports what fits, tracks or orchestrates. pyarrow itself loads pandas, if it is there."""
    program = (
        "import sys\nimport ml_assets.serving.app, ml_assets.serving.models, ml_assets.serving.clock\n"
        "from ml_assets.usecases import discover\ndiscover()\n"
        "print([name for name in ('dagster', 'sklearn', 'lightgbm', 'mlflow', 'optuna') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")
