"""Errors as problem details (RFC 9457): what is wrong, in which field, and what to do."""

from collections.abc import Mapping
from http import HTTPStatus

import msgspec
from starlette.responses import Response


class ProblemError(Exception):
    """An error to answer with: its status, its text, and, if it is about a field, the field's JSON path."""

    def __init__(self, status: int, detail: str, field: str = "", *, retry_after: int = 0) -> None:
        super().__init__(detail)
        self.status, self.detail, self.field, self.retry_after = status, detail, field, retry_after


def problem(error: ProblemError, instance: str, request_id: str) -> Response:
    """Return the error as `application/problem+json`; `instance` is the path of the request."""
    body = {
        "type": "about:blank",
        "title": HTTPStatus(error.status).phrase,
        "status": error.status,
        "detail": error.detail,
        "instance": instance,
        "request_id": request_id,
        **({"errors": [{"field": error.field, "reason": error.detail}]} if error.field else {}),
    }
    headers: Mapping[str, str] = {"Retry-After": str(error.retry_after)} if error.retry_after else {}
    if error.status == 401:  # RFC 6750
        headers = {**headers, "WWW-Authenticate": "Bearer"}
    return Response(msgspec.json.encode(body), error.status, dict(headers), media_type="application/problem+json")


def of_decoding(error: msgspec.DecodeError) -> ProblemError:
    """Return the problem of a body that msgspec could not decode, with the field if msgspec names it."""
    text, _, place = str(error).partition(" - at `")
    broken = not isinstance(error, msgspec.ValidationError)
    return ProblemError(400 if broken else 422, text, "" if broken else place.rstrip("`") or "$")
