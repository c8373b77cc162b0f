"""The OpenAPI document, with examples that the tests send."""

from functools import cache
from typing import Any

import msgspec

from ml_assets.serving.bodies import ExplainRequest, ScoreRequest

EXAMPLES: dict[str, Any] = {
    "ScoreRequest": {
        "open decisions": {"entity_ids": ["SI-EXAMPLE"]},
        "not booked yet": {
            "what_if": [
                {
                    "settlement_instructions": {
                        "instruction_id": "SI-WHAT-IF", "uti": "5299EXAMPLE0000000001", "isin": "DE0001000000",
                        "movement": "DELI", "payment": "APMT", "quantity": 1000, "amount": 45_000.0,
                        "counterparty_lei": "5299EXAMPLE000000001", "account": "SAFE00001", "pset": "DAKVDEFFXXX",
                        "trade_date": "2026-01-05", "intended_settlement_date": "2026-01-07",
                    }
                }
            ]
        },
    },
    "ExplainRequest": {"open decisions": {"entity_ids": ["SI-EXAMPLE"]}},
}  # fmt: skip

_TEXT, _TIME, _ANY = {"type": "string"}, {"type": "string", "format": "date-time"}, {"type": "object"}
_NUMBER, _INTEGER = {"type": "number"}, {"type": "integer"}
_OR_NOT: dict[str, Any] = {"type": ["string", "null"]}
_MODEL: dict[str, Any] = {"type": ["object", "null"]}


def _object(**properties: Any) -> dict[str, Any]:
    """Return the schema of an object that has all of these properties and may have more."""
    return {"type": "object", "required": list(properties), "properties": properties}


def _list(of: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": of}


def _named(schema: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{schema}"}


_SCORE = _object(
    entity_id=_TEXT, decision_time=_TIME, decision_date={"type": "string", "format": "date"}, slot=_TEXT,
    outcome_date={"type": "string", "format": "date"}, cost_if_fail=_NUMBER,
    probability={"type": "number", "minimum": 0, "maximum": 1}, expected_cost=_NUMBER, currency=_TEXT, attributes=_ANY,
    stage={"enum": ["champion", "canary"]}, model_version=_INTEGER,
)  # fmt: skip
_PROBLEM = _object(type=_TEXT, title=_TEXT, status=_INTEGER, detail=_TEXT, instance=_TEXT, request_id=_TEXT)
_PROBLEM["properties"]["errors"] = _list(_object(field=_TEXT, reason=_TEXT))
_SCHEMAS = {
    "Problem": _PROBLEM,
    "Score": _SCORE,
    "Scores": _object(
        use_case=_TEXT, request_id=_TEXT, as_of=_TIME, newest_event={"type": ["string", "null"], "format": "date-time"},
        stale={"type": "boolean"}, stale_reason=_OR_NOT,
        model=_object(version=_INTEGER, mlflow_run_id=_TEXT, stage=_TEXT),
        scores=_list(_named("Score")), refused=_list(_object(entity_id=_TEXT, reason=_TEXT)),
    ),
    "Reasons": _object(base=_NUMBER, contributions={"type": "object", "additionalProperties": _NUMBER}),
    "Explanations": {
        "allOf": [
            _named("Scores"), _object(scores=_list({"allOf": [_named("Score"), _object(reasons=_named("Reasons"))]})),
        ]
    },
    "Models": _object(
        request_id=_TEXT,
        models=_list(
            _object(
                use_case=_TEXT, champion=_MODEL, challenger=_MODEL, canary=_MODEL, canary_ended=_MODEL, refused=_OR_NOT
            )
        ),
    ),
    "Live": _object(live={"type": "boolean"}),
    "Ready": _object(
        ready={"type": "boolean"}, troubles=_ANY, refused_models=_ANY, newest_event=_ANY,
        alerts_evaluated_at={"type": ["string", "null"], "format": "date-time"},
    ),
}  # fmt: skip
_JSON, _PROBLEMS = "application/json", "application/problem+json"
_NEEDS_TOKEN = (400, 401, 403, 429, 500, 503)
_WHY = {
    400: "the body is not readable JSON",
    401: "there is no valid token",
    403: "the token's scopes do not allow the request",
    404: "there is no such use case",
    408: "the body did not arrive in time",
    413: "the body is too long",
    422: "a field is not valid; `errors` names it",
    429: "this client sends too many requests",
    500: "the service failed",
    503: "the service cannot answer now, or has too many requests",
}


@cache
def document() -> dict[str, Any]:
    """Return the OpenAPI document."""
    _, requests = msgspec.json.schema_components(
        [ScoreRequest, ExplainRequest], ref_template="#/components/schemas/{name}"
    )
    # Exactly one of the two is given.
    requests["ScoreRequest"]["oneOf"] = [
        {"required": [given], "properties": {given: {"type": "array"}, other: {"type": "null"}}}
        for given, other in (("entity_ids", "what_if"), ("what_if", "entity_ids"))
    ]
    return {
        "openapi": "3.1.0",
        "info": {"title": "Scoring", "version": "1"},
        "paths": {
            "/v1/{use_case}/score": _post("Score open decisions, or what-if requests", "ScoreRequest", "Scores"),
            "/v1/{use_case}/explain": _post(
                "Score open decisions, with reasons that sum to the log-odds", "ExplainRequest", "Explanations"
            ),
            "/models": _get(
                "Which version answers for each use case, since when, by whom", "Models", *map(_problem, _NEEDS_TOKEN)
            ),
            "/health/live": _get("Whether the process answers", "Live"),
            "/health/ready": _get(
                "Whether model, live table and database are fit", "Ready", (503, _answer("not ready, and why", "Ready"))
            ),
            "/metrics": _get("Metrics for Prometheus", ""),
            "/openapi.json": _get("This document", "Document"),
        },
        "components": {
            "schemas": {**requests, **_SCHEMAS, "Document": _ANY},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        },
    }


def _post(summary: str, body: str, said: str) -> dict[str, Any]:
    examples = {name: {"value": value} for name, value in EXAMPLES[body].items()}
    problems = dict(map(_problem, (*_NEEDS_TOKEN, 404, 408, 413, 422)))
    return {
        "post": {
            "summary": summary,
            "security": [{"token": []}, {}],  # no token is needed on a laptop
            "parameters": [
                {"name": "use_case", "in": "path", "required": True, "schema": {"type": "string", "pattern": "^[^/]+$"}}
            ],
            "requestBody": {
                "required": True, "content": {_JSON: {"schema": _named(body), "examples": examples}},
            },
            "responses": {"200": _answer("scores, and what was refused", said), **problems},
        }
    }  # fmt: skip


def _get(summary: str, said: str, *others: tuple[int | str, Any]) -> dict[str, Any]:
    answer = _answer("the answer", said) if said else {"description": "the answer", "content": {"text/plain": {}}}
    secured: dict[str, Any] = (
        {"security": [{"token": []}, {}]} if any(str(status) == "401" for status, _ in others) else {}
    )
    return {"get": {"summary": summary, **secured, "responses": {"200": answer, **{str(s): one for s, one in others}}}}


def _answer(description: str, said: str) -> dict[str, Any]:
    return {"description": description, "content": {_JSON: {"schema": _named(said)}}}


def _problem(status: int) -> tuple[str, dict[str, Any]]:
    headers = {"Retry-After": {"description": "seconds", "schema": _INTEGER}} if status == 429 else {}
    return str(status), {
        "description": _WHY[status],
        **({"headers": headers} if headers else {}),
        "content": {_PROBLEMS: {"schema": _named("Problem")}},
    }
