"""HTTP: the desk's routes, and what guards them. Each page is made on the server; forms are answered by a redirect."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, urlencode
from uuid import uuid4
from zoneinfo import ZoneInfo

import msgspec
from fastapi import FastAPI
from sqlalchemy.exc import InterfaceError, OperationalError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import QueryParams
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from ml_assets.database.feedback import Written, feedback_lines, write_feedback
from ml_assets.database.predictions import decisions_of
from ml_assets.database.promotions import in_force
from ml_assets.database.work_list import next_outcome_date
from ml_assets.desk import pages
from ml_assets.desk.drawn import from_slot_to_slot, steps_of, waterfall
from ml_assets.desk.lead import model_standing, worked_off
from ml_assets.desk.lists import MOST_ROWS, Closed, Lists, Snapshot
from ml_assets.desk.people import Door, Forms, Person, RefusedError, Role
from ml_assets.desk.rows import (
    CLOSED,
    ORDERS,
    VIEWS,
    Asked,
    Row,
    changes,
    chosen,
    codes_of,
    facts_of,
    in_view,
    options,
    title_of,
)
from ml_assets.desk.sayings import DONE, RIGHT, TAKE_OVER, Form, sayings
from ml_assets.errors import ActionableError, InputError, NotFoundError
from ml_assets.platform import Platform
from ml_assets.predictions.feedback import OTHER, RESULTS, UNTOUCHED, Line, Standing, by_entity, standing
from ml_assets.reports.sheet import Cell as SheetCell
from ml_assets.reports.sheet import csv_text
from ml_assets.reports.units import UNITS, write
from ml_assets.spec import DecisionTime, UseCase

if TYPE_CHECKING:
    from ml_assets.lifecycle.opened_models import OpenedModels
    from ml_assets.reports.spec import Report

_MOST_BYTES: Final = 512 * 1024
_MOST_FIELDS: Final = 2_000
_CLOCK_SECONDS: Final = 15.0
# What a form says that is offered again where a colleague has been there; and what an address says of a form.
_KEPT: Final = ("action", "result", "cause", "note", "snapshot")
_SAID: Final = ("done", "n", "again")
# No page runs a script or loads anything but its own two files, nor is it shown within another page.
_HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Asking:
    """A request to a page of a use case: who asks, of which list, and what time it is."""

    request: Request
    person: Person
    usecase: UseCase
    day: date
    now: datetime

    @property
    def path(self) -> str:
        return f"/{self.usecase.name}/{self.day}"

    @property
    def query(self) -> QueryParams:
        return self.request.query_params


class Desk:
    """What the pages are made from.

    Args:
        platform: the database, and for events and traces the lake and the registry; each opened when first used.
        usecases: those that the desk shows, by name.
        clock: the time, in UTC.
        door: who lets people in.
        forms: who signs forms.
    """

    def __init__(
        self,
        platform: Platform,
        usecases: Sequence[UseCase],
        *,
        clock: Callable[[], datetime],
        door: Door,
        forms: Forms,
        every_seconds: float = 15.0,
    ) -> None:
        self.platform, self.door, self.forms = platform, door, forms
        self.usecases = {usecase.name: usecase for usecase in usecases}
        self._ask_clock, self._time = clock, (0.0, datetime.now(UTC))
        self._opening = threading.Lock()
        # Computing a score again takes seconds of a core, and memory: one at a time.
        self.tracing = threading.Lock()
        self.lists = Lists(lambda: self.engine, self.now, self._closed, every_seconds=every_seconds)

    @property
    def engine(self) -> Any:
        """The application's database; threads open it once."""
        with self._opening:
            return self.platform.engine

    @cached_property
    def models(self) -> OpenedModels:
        """The models by which past cases are compared, opened when first asked for."""
        from ml_assets.lifecycle.opened_models import OpenedModels

        return OpenedModels(self.platform.registry, self.platform.settings.threads or 1)

    def _closed(self, usecase: UseCase, rows: Sequence[Row]) -> Closed:
        from ml_assets.lifecycle.still_open import Listed, closed_since

        listed = {
            row.entity_id: Listed(DecisionTime(row.slot, row.decision_time, row.decision_time.date()), row.cut_off_at)
            for row in rows
        }
        return closed_since(self.platform.lake, usecase, listed, self.now())

    def now(self) -> datetime:
        """Return the desk's time: the clock is asked every few seconds, as it may look at the lake, and goes on."""
        asked, found = self._time
        since = time.monotonic() - asked
        if since > _CLOCK_SECONDS or asked == 0.0:
            found = self._ask_clock()
            self._time = (time.monotonic(), found)
            return found
        return found + timedelta(seconds=since)

    def asking(self, request: Request, role: Role = "viewer") -> _Asking:
        """Return who asks for which list.

        Raises:
            RefusedError: he may not, or may not know that there is one.
            NotFoundError: there is no such use case or date.
        """
        person = self.door(request)
        usecase = self.usecases.get(request.path_params["use_case"])
        if usecase is None or not person.may(usecase.name, "viewer"):
            raise NotFoundError("there is no such use case, or it is none of yours")
        if not person.may(usecase.name, role):
            raise RefusedError(
                403, f"{usecase.title}: this is for the role {role}, and yours is {person.role(usecase.name)}"
            )
        try:
            day = date.fromisoformat(request.path_params.get("day", "2000-01-01"))
        except ValueError:
            raise NotFoundError(f"{request.path_params['day'][:40]!r} is no date") from None
        if not 2000 <= day.year < 2100:
            raise NotFoundError(f"no list is as far away as {day}")
        return _Asking(request, person, usecase, day, self.now())

    def snapshot(self, asking: _Asking, wanted: str) -> tuple[Snapshot, Snapshot, bool]:
        """Return the list that the reader has, the newest one, and whether the reader's is no longer kept."""
        newest = self.lists.newest(asking.usecase, asking.day)
        if not wanted or wanted == newest.id:
            return newest, newest, False
        kept = self.lists.snapshot(asking.usecase, asking.day, wanted)
        return (kept or newest), newest, kept is None

    def standings(self, asking: _Asking) -> tuple[dict[str, Standing], dict[str, list[Line]], int]:
        """Return where the rows of a list stand, what was said of each, and the newest line of all."""
        said = by_entity(feedback_lines(self.engine, asking.usecase.name, asking.day))
        last = max((lines[-1].id for lines in said.values()), default=0)
        return {entity: standing(lines, asking.now) for entity, lines in said.items()}, said, last

    def warm(self) -> None:
        """Read the lists that people will ask for first, so that nobody waits for them."""
        for usecase in self.usecases.values():
            try:
                if (day := self.next_day(usecase)) is not None:
                    self.lists.newest(usecase, day)
            except Exception as error:
                # The first reader is told, if it is so still.
                _LOG.error("%s: the list cannot be read yet: %s", usecase.name, error)

    def next_day(self, usecase: UseCase) -> date | None:
        """Return the outcome date that people work on: today's while anything can be done, else the next one."""
        now = self.now()
        rows = self.lists.newest(usecase, now.date()).rows
        if any(row.cut_off_at > now for row in rows):
            return now.date()
        return next_outcome_date(self.engine, usecase.name)


def build_app(desk: Desk) -> FastAPI:
    """Return the pages of a desk."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        threading.Thread(target=desk.warm, name="warm", daemon=True).start()
        yield

    app = FastAPI(title="ml_assets desk", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    # Each route: its path, who may ask, and what answers in a thread.
    routes: dict[str, tuple[Role, Callable[[Desk, _Asking], Response]]] = {
        "/{use_case}/{day}": ("viewer", _list_page),
        "/{use_case}/{day}/export.csv": ("viewer", _export),
        "/{use_case}/{day}/changes": ("viewer", _changes),
        "/{use_case}/{day}/row": ("viewer", _row_page),
        "/{use_case}/{day}/events": ("viewer", _events),
        "/{use_case}/{day}/similar": ("viewer", _similar),
        "/{use_case}/{day}/trace": ("viewer", _trace),
        "/{use_case}/{day}/lead": ("lead", _lead_page),
    }

    def live(_: Request) -> Response:
        return PlainTextResponse("alive")

    def ready(_: Request) -> Response:
        with desk.engine.begin() as connection:
            connection.exec_driver_sql("SELECT 1")
        return PlainTextResponse("ready")

    def index(request: Request) -> Response:
        person = desk.door(request)
        own = [usecase for usecase in desk.usecases.values() if person.may(usecase.name, "viewer")]
        if not own:
            raise RefusedError(403, "none of your groups has a role at the desk; ask for one")
        found = [(usecase, desk.next_day(usecase)) for usecase in own]
        with_list = [(usecase, day) for usecase, day in found if day is not None]
        if len(with_list) == 1:
            return RedirectResponse(f"/{with_list[0][0].name}/{with_list[0][1]}", 303)
        return _page(desk, "index", 200, person=person, found=found)

    def newest(request: Request) -> Response:
        asking = desk.asking(request)
        day = desk.next_day(asking.usecase)
        if day is None:
            raise NotFoundError(
                f"{asking.usecase.title}: nothing has been scored yet",
                to_do=f"score a date: ml-assets score {asking.usecase.name} --date <date>",
            )
        tail = "/lead" if request.path_params.get("page") == "lead" else ""
        return RedirectResponse(f"/{asking.usecase.name}/{day}{tail}", 303)

    app.mount("/static", StaticFiles(packages=[("ml_assets.desk", "static")]))
    app.add_route("/health/live", _guarded(desk, live), methods=["GET"])
    app.add_route("/health/ready", _guarded(desk, ready), methods=["GET"])
    app.add_route("/", _guarded(desk, index), methods=["GET"])
    app.add_route("/{use_case}", _guarded(desk, newest), methods=["GET"])
    for path, (role, answer) in routes.items():
        app.add_route(path, _guarded(desk, partial(_asked, desk, role, answer)), methods=["GET"])
    app.add_route("/{use_case}/{day}/feedback", _guarded(desk, partial(_save, desk), reads=True), methods=["POST"])
    return app


def _asked(desk: Desk, role: Role, answer: Callable[[Desk, _Asking], Response], request: Request) -> Response:
    return answer(desk, desk.asking(request, role))


def _guarded(desk: Desk, answer: Callable[..., Response], *, reads: bool = False) -> Callable[[Request], Any]:
    """Return an endpoint: it answers in a thread, tells errors as pages, and adds the headers that guard pages.

    With `reads` the answer takes the form that was sent.
    """

    async def endpoint(request: Request) -> Response:
        form: Form | None = None
        try:
            if reads:
                form = await _read(request)
            response = (
                await run_in_threadpool(answer, request, form) if reads else await run_in_threadpool(answer, request)
            )
        except RefusedError as error:
            response = _page(desk, "problem", error.status, person=None, title="Not let in", said=str(error))
        except NotFoundError as error:
            response = _page(desk, "problem", 404, person=None, title="Not here", said=str(error))
        except InputError as error:
            response = _page(
                desk, "problem", 422, person=None, title="Not saved" if reads else "Not possible", said=str(error)
            )
        except (OperationalError, InterfaceError) as error:
            _LOG.error("the database does not answer: %s", getattr(error, "orig", error))
            response = _unsaved(desk, request, form)
        except ActionableError as error:
            response = _page(desk, "problem", 409, person=None, title="Not possible now", said=str(error))
        except ClientDisconnect:
            response = Response(status_code=400)
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    return endpoint


async def _read(request: Request) -> Form:
    """Return the form that was sent.

    Raises:
        InputError: it is no form, or too large.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise InputError("only a form of the desk can be sent here")
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > _MOST_BYTES:
            raise InputError(
                f"the form has more than {_MOST_BYTES // 1024} KiB; say it in fewer words, or of fewer rows"
            )
    try:
        return Form(parse_qs(body.decode("utf-8"), keep_blank_values=True, max_num_fields=_MOST_FIELDS))
    except ValueError:
        raise InputError("the form cannot be read") from None


def _page(desk: Desk, name: str, status: int, *, person: Person | None, **values: Any) -> Response:
    text = pages.render(
        name, person=person, usecases=_usecases_of(desk, person), links=desk.platform.settings.links, **values
    )
    return Response(text, status, media_type="text/html")


def _usecases_of(desk: Desk, person: Person | None) -> list[UseCase]:
    return [one for one in desk.usecases.values() if person is not None and person.may(one.name, "viewer")]


def _unsaved(desk: Desk, request: Request, form: Form | None) -> Response:
    """Return the page that says that the database does not answer; what was written in a form is kept in it."""
    kept = [(name, value) for name, values in form.fields.items() for value in values] if form else []
    response = _page(desk, "unsaved", 503, person=None, kept=kept, path=request.url.path)
    response.headers["Retry-After"] = "5"
    return response


def _of_list(desk: Desk, asking: _Asking) -> dict[str, Any]:
    """Return what every page of a list shows in its head."""
    usecase, day = asking.usecase, asking.day
    zone = ZoneInfo(usecase.desk.zone)
    return {
        "usecase": usecase,
        "day": day,
        "path": asking.path,
        "now": asking.now,
        "zone": zone,
        "zone_name": asking.now.astimezone(zone).tzname(),
        "role": asking.person.role(usecase.name),
        "may_act": asking.person.may(usecase.name, "analyst"),
        "is_lead": asking.person.may(usecase.name, "lead"),
        "before": usecase.calendar.previous(day),
        "after": usecase.calendar.next(day),
        "csrf": desk.forms.token(asking.person),
        "key": uuid4().hex,
        "results": RESULTS,
        "other": OTHER,
        "right": RIGHT,
        "take_over": TAKE_OVER,
    }


def _asked_rows(asking: _Asking, columns: int) -> Asked:
    """Return which rows are asked for; what is no view, filter or order counts as not said."""
    query, usecase = asking.query, asking.usecase
    view = query.get("view", "open")
    order = query.get("order", "priority")
    known = order in ORDERS or (order.isdecimal() and len(order) < 4 and int(order) < columns)
    filters = {name: query[f"is.{name}"] for name in usecase.desk.filters if query.get(f"is.{name}")}
    return Asked(
        view=view if view in VIEWS else "open",  # type: ignore[arg-type]
        words=query.get("q", "")[:200],
        cause=query.get("cause", ""),
        filters=filters,
        order=order if known else "priority",
        falling=query.get("falling") == "1",
        **({"most": MOST_ROWS} if query.get("rows") == "all" else {}),
    )


def _list_page(desk: Desk, asking: _Asking) -> Response:
    begun = time.perf_counter()
    snapshot, newest, lost = desk.snapshot(asking, asking.query.get("snapshot", ""))
    standings, _, last = desk.standings(asking)
    asked = _asked_rows(asking, len(snapshot.columns))
    closed = desk.lists.closed(asking.usecase, asking.day)
    rows = chosen(snapshot.rows, standings, asked, asking.person.name, asking.now, closed)
    before = desk.lists.snapshot(asking.usecase, asking.day, asking.query.get("since", ""))
    kept = {name: value for name, value in asking.query.items() if name not in _SAID}
    kept["snapshot"] = snapshot.id

    def address(**changed: str) -> str:
        return f"{asking.path}?" + urlencode({name: value for name, value in (kept | changed).items() if value})

    work = worked_off(asking.usecase, snapshot.rows, standings, asking.now, closed)
    counts = dict.fromkeys(VIEWS, 0)
    for row in snapshot.rows:
        at, is_closed = standings.get(row.entity_id, UNTOUCHED), row.entity_id in closed
        for view in VIEWS:
            # What is beyond the list is shown below the line, and is nothing to do.
            if in_view(row, at, view, asking.person.name, asking.now, is_closed) and (view != "open" or row.on_list):
                counts[view] += 1
    next_cut_off = min(
        (
            row.cut_off_at
            for row in snapshot.rows
            if row.cut_off_at > asking.now and row.on_list and row.entity_id not in closed
        ),
        default=None,
    )
    response = _page(
        desk, "list", 200, person=asking.person, snapshot=snapshot, newest=newest, lost=lost, rows=rows, asked=asked,
        standings=standings, untouched=UNTOUCHED, last=last, address=address, work=work, views=VIEWS, counts=counts,
        next_cut_off=next_cut_off, changed=changes(before.rows, snapshot.rows) if before else {}, back=address(),
        filters=_filters(asking.usecase, snapshot, asked), done=_done(asking.query), closed=closed,
        time_left=pages.time_left(asking.now, ZoneInfo(asking.usecase.desk.zone)), **_of_list(desk, asking),
    )  # fmt: skip
    response.headers["Server-Timing"] = f"page;dur={1000 * (time.perf_counter() - begun):.1f}"
    return response


def _filters(usecase: UseCase, snapshot: Snapshot, asked: Asked) -> list[tuple[str, str, str, list[tuple[str, str]]]]:
    """Return each filter: its field, title, what is chosen, and the values to choose from."""
    found = [
        (
            f"is.{name}",
            title_of(snapshot.columns, name),
            asked.filters.get(name, ""),
            options(snapshot.rows, name, codes_of(snapshot.columns, name)),
        )
        for name in usecase.desk.filters
    ]
    causes = [(cause.code, cause.name) for cause in usecase.causes]
    return [*found, *([("cause", "Reason", asked.cause, causes)] if causes else [])]


def _done(query: QueryParams) -> str:
    """Return in words what has just been saved."""
    words, number = DONE.get(query.get("done", ""), ""), query.get("n", "")
    if not words or not number.isdecimal() or len(number) > 4:
        return ""
    rows = "1 row" if number == "1" else f"{number} rows"
    return f"Saved: {rows} {words}." if query.get("again") != "1" else "That had been saved already; it counts once."


def _export(desk: Desk, asking: _Asking) -> Response:
    snapshot, _, _ = desk.snapshot(asking, asking.query.get("snapshot", ""))
    standings, _, _ = desk.standings(asking)
    asked = _asked_rows(asking, len(snapshot.columns))
    closed = desk.lists.closed(asking.usecase, asking.day)
    rows = chosen(snapshot.rows, standings, asked, asking.person.name, asking.now, closed)
    usecase = asking.usecase
    names = [name for column in snapshot.columns for name in (column.attribute, column.detail) if name]
    headings = [
        "Rank", usecase.entity.capitalize(), *(title_of(snapshot.columns, name) for name in names), "Cut-off (UTC)",
        f"P({usecase.label.probability_of})", "Reason", "What to do", f"Expected cost ({usecase.currency})", "Owner",
        "State", "Action taken for", "Result",
    ]  # fmt: skip

    def cells(row: Row) -> list[SheetCell]:
        at = standings.get(row.entity_id, UNTOUCHED)
        hidden = row.is_hidden(at)
        return [
            None if hidden else row.priority, row.entity_id, *(_sheet(row.attributes.get(name)) for name in names),
            f"{row.cut_off_at:%Y-%m-%d %H:%M}",
            None if hidden else write(row.probability, UNITS["share"]), "" if hidden else row.reason,
            "" if hidden else row.action, None if hidden else write(row.expected_cost, UNITS["currency"]),
            at.owner, CLOSED if row.entity_id in closed and at.acted is None else at.state,
            at.acted.value if at.acted else None, at.result.value if at.result else None,
        ]  # fmt: skip

    name = f"{usecase.name}-{asking.day}.csv"
    return Response(
        csv_text(headings, map(cells, rows)),
        media_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


def _sheet(value: Any) -> SheetCell:
    if value is None or isinstance(value, str):
        return value
    return (
        write(value, UNITS["currency"])
        if isinstance(value, int | float) and not isinstance(value, bool)
        else str(value)
    )


def _changes(desk: Desk, asking: _Asking) -> Response:
    """Answer what has happened since a page was made: whether there is a newer list, and where rows stand now."""
    after = asking.query.get("after", "0")
    number = int(after) if after.isascii() and after.isdecimal() and len(after) < 19 else 0
    newest = desk.lists.newest(asking.usecase, asking.day)
    closed = desk.lists.closed(asking.usecase, asking.day)
    standings, said, last = desk.standings(asking)
    rows = {
        entity: {"owner": at.owner, "state": at.state, "mine": at.owner == asking.person.name}
        for entity, at in standings.items()
        if said[entity][-1].id > number
    }
    body = {
        "newer": newest.id != asking.query.get("snapshot"),
        "scored": f"{newest.scored_at:%Y-%m-%dT%H:%M}Z" if newest.scored_at else None,
        "last": last,
        "rows": rows,
        "closed": [row.entity_id for row in newest.rows if row.on_list and row.entity_id in closed],
    }
    return Response(msgspec.json.encode(body), media_type="application/json")


def _row_of(desk: Desk, asking: _Asking) -> tuple[Snapshot, Row]:
    entity = asking.query.get("entity", "")
    snapshot, newest, _ = desk.snapshot(asking, asking.query.get("snapshot", ""))
    if (row := snapshot.row(entity) or newest.row(entity)) is None:
        raise NotFoundError(
            f"{entity[:80]!r} is not on the list of {asking.day}",
            to_do="it may have settled, been cancelled, or moved to another date",
        )
    return snapshot, row


def _is_hidden(desk: Desk, asking: _Asking, row: Row) -> bool:
    standings, _, _ = desk.standings(asking)
    return row.is_hidden(standings.get(row.entity_id, UNTOUCHED))


def _row_page(desk: Desk, asking: _Asking) -> Response:
    snapshot, row = _row_of(desk, asking)
    standings, said, last = desk.standings(asking)
    at = standings.get(row.entity_id, UNTOUCHED)
    hidden = row.is_hidden(at)
    usecase = asking.usecase
    decisions = decisions_of(desk.engine, usecase.name, asking.day, row.entity_id)
    steps = steps_of(usecase, row.reason_codes) if row.reason_codes and not hidden else []
    zone = ZoneInfo(usecase.desk.zone)
    points = [(one["decision_time"].astimezone(zone), one["slot"], one["probability"]) for one in decisions]
    said_of = next((one for one in decisions if one["decision_time"] == row.decision_time), None)
    promotion = in_force(desk.engine, usecase.name, said_of["mlflow_run_id"], said_of["scored_at"]) if said_of else None
    return _page(
        desk, "row", 200, person=asking.person, snapshot=snapshot, row=row, at=at, hidden=hidden, steps=steps,
        waterfall=waterfall(steps), facts=facts_of(usecase, row, snapshot.columns), points=() if hidden else points,
        slots=from_slot_to_slot([] if hidden else points), lines=said.get(row.entity_id, []), last=last,
        counts_ids={line.id for line in at.lines}, said_of=said_of, promotion=promotion, causes=usecase.causes,
        names={cause.code: cause.name for cause in usecase.causes} | {OTHER: "something else"},
        back=f"{asking.path}/row?" + urlencode({"entity": row.entity_id, "snapshot": snapshot.id}),
        list_back=f"{asking.path}?" + urlencode({"snapshot": snapshot.id}), done=_done(asking.query),
        query=urlencode({"entity": row.entity_id}), closed_at=desk.lists.closed(usecase, asking.day).get(row.entity_id),
        **_of_list(desk, asking),
    )  # fmt: skip


def _events(desk: Desk, asking: _Asking) -> Response:
    from ml_assets.lifecycle.lineage import events_until

    _, row = _row_of(desk, asking)
    decision = DecisionTime(row.slot, row.decision_time)
    found = events_until(desk.platform.lake, asking.usecase, row.entity_id, decision)
    return _fragment(desk, asking, "events", row, events=found)


def _similar(desk: Desk, asking: _Asking) -> Response:
    from ml_assets.lifecycle.similar import find_similar

    _, row = _row_of(desk, asking)
    found, why = None, ""
    if _is_hidden(desk, asking, row):
        why = "They come with the score, once somebody has acted."
    else:
        try:
            found = find_similar(
                desk.platform.lake, desk.platform.registry, desk.engine, asking.usecase, row.entity_id,
                row.decision_time, models=desk.models,
            )  # fmt: skip
        except ActionableError as error:
            why = str(error)
    names = {cause.code: cause.name for cause in asking.usecase.causes}
    return _fragment(desk, asking, "similar", row, found=found, why=why, names=names)


def _trace(desk: Desk, asking: _Asking) -> Response:
    from ml_assets.lifecycle.lineage import explain_prediction

    _, row = _row_of(desk, asking)
    platform = desk.platform
    if _is_hidden(desk, asking, row):
        return _fragment(desk, asking, "trace", row, found=None)
    with desk.tracing:
        found = explain_prediction(
            platform.lake, platform.registry, desk.engine, asking.usecase, row.entity_id, row.decision_time,
            threads=platform.settings.threads or 1,
        )  # fmt: skip
    return _fragment(desk, asking, "trace", row, found=found)


def _fragment(desk: Desk, asking: _Asking, name: str, row: Row, **values: Any) -> Response:
    """Return a part of a row's page: alone for its script, or as a page of its own for a reader without one."""
    part = asking.query.get("part") == "1"
    back = f"{asking.path}/row?" + urlencode({"entity": row.entity_id})
    shared = {"row": row, "back": back, **values, **_of_list(desk, asking)}
    return _page(desk, name if part else f"{name}_page", 200, person=asking.person, **shared)


def _lead_page(desk: Desk, asking: _Asking) -> Response:
    from ml_assets.lifecycle.reports import reports_of

    snapshot = desk.lists.newest(asking.usecase, asking.day)
    standings, _, _ = desk.standings(asking)
    reports = [(one.title, _address_of(desk, asking, one)) for one in reports_of(asking.usecase).values()]
    return _page(
        desk, "lead", 200, person=asking.person, snapshot=snapshot, reports=reports,
        work=worked_off(
            asking.usecase, snapshot.rows, standings, asking.now, desk.lists.closed(asking.usecase, asking.day)
        ),
        model=model_standing(desk.engine, asking.usecase, asking.now.date()), **_of_list(desk, asking),
    )  # fmt: skip


def _address_of(desk: Desk, asking: _Asking, report: Report) -> str:
    """Return where the newest page of a report is: that of today where reports are served, else its asset."""
    links, name, day = desk.platform.settings.links, asking.usecase.name, asking.now.date()
    served = links.report(f"{name}/{report.name}/{day}/{report.name}.html") if report.cadence == "daily" else ""
    return served or links.asset([name, "reports", report.name])


def _save(desk: Desk, request: Request, form: Form) -> Response:
    """Save what a form says, and lead back; what was not saved is told, beside what a colleague had said."""
    asking = desk.asking(request, "analyst")
    desk.forms.check(request, asking.person, form.one("csrf"))
    snapshot, _, _ = desk.snapshot(asking, form.one("snapshot"))
    standings, _, _ = desk.standings(asking)
    said = sayings(form, snapshot, standings, asking.person.name)
    usecase = asking.usecase
    written = write_feedback(
        desk.engine, usecase.name, asking.day, said, now=asking.now, lease_length=usecase.desk.lease,
        causes=[cause.code for cause in usecase.causes],
    )  # fmt: skip
    back = _back(asking, form.one("back"))
    if written.conflicts or written.refused:
        return _not_all(desk, asking, form, written, back)
    again = not written.saved
    done = {
        "done": said[0][0].what,
        "n": str(len(written.saved or written.repeated)),
        **({"again": "1"} if again else {}),
    }
    return RedirectResponse(f"{back}{'&' if '?' in back else '?'}{urlencode(done)}", 303)


def _not_all(desk: Desk, asking: _Asking, form: Form, written: Written, back: str) -> Response:
    _, _, last = desk.standings(asking)
    kept = [(name, value) for name in _KEPT for value in form.all(name)]
    return _page(
        desk, "not_all", 409 if written.conflicts else 422, person=asking.person, written=written, back=back,
        last=last, kept=kept, done=DONE, names={cause.code: cause.name for cause in asking.usecase.causes},
        **_of_list(desk, asking),
    )  # fmt: skip


def _back(asking: _Asking, wanted: str) -> str:
    """Return the address that a form leads back to: one of the same list, whatever the form says."""
    path, _, query = wanted.partition("?")
    if path not in (asking.path, f"{asking.path}/row"):
        return asking.path
    pairs = {name: values[-1] for name, values in parse_qs(query, max_num_fields=50).items() if name not in _SAID}
    return f"{path}?{urlencode(pairs)}" if pairs else path
