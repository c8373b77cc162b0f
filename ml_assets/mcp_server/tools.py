"""The tools: each validates, asks the function that the command line asks, and returns an object for JSON.

A tool's signature and docstring are what a client is told of it. Each raises `ActionableError` with what to do, or
`ForbiddenError` if the caller's token is for something else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from functools import cached_property
from typing import Annotated, Any, Final

from pydantic import Field

from ml_assets.errors import InputError, NotFoundError
from ml_assets.mcp_server.marking import mark, marked, plain, unmark
from ml_assets.platform import Platform
from ml_assets.serving.auth import Caller, ForbiddenError
from ml_assets.spec import UseCase

UseCaseName = Annotated[str, Field(max_length=64, description="name of a use case; model_status lists them")]
Entity = Annotated[
    str, Field(min_length=1, max_length=2_000, description="id of the entity, as work_list gives it")
]  # marked ids are longer than what they hold
DecisionTime = Annotated[
    datetime | None, Field(description="time of the decision (ISO 8601, UTC); the newest decision if not given")
]
# What an answer holds at most: an agent has a limited memory, and a long answer hides what matters in it.
MOST_ROWS: Final = 100
_LONGEST_ENTITY: Final = 200
_EVENTS: Final = 50

Answer = dict[str, Any]


class Tools:
    """The tools on a platform, for a caller whose rights `allowed` knows."""

    def __init__(
        self, platform: Platform, usecases: Sequence[UseCase], caller: Callable[[], Caller | None] = lambda: None
    ) -> None:
        """Take the platform, what can be asked about, and what tells who asks: None is a person on this machine."""
        self._platform, self._usecases, self._caller = platform, {one.name: one for one in usecases}, caller

    @property
    def all(self) -> tuple[Callable[..., Answer], ...]:
        """The tools, in the order in which they are listed."""
        return (self.work_list, self.explain, self.similar_cases, self.alerts, self.reports, self.model_status)

    def work_list(
        self,
        use_case: UseCaseName,
        outcome_date: Annotated[
            date | None, Field(description="date of the outcomes, not of the decisions; the next one if not given")
        ] = None,
        rows: Annotated[int, Field(ge=1, le=MOST_ROWS, description="rows to return, the dearest first")] = 20,
    ) -> Answer:
        """What to act on: the open decisions of an outcome date by expected cost.

        Each row has its priority, entity, what it is about (attributes), the probability of what is predicted (such as
        a fail), the expected cost, the likely cause and the proposed action. Decisions that cost more to act on than
        they save are left out.
        """
        from ml_assets.database.work_list import next_outcome_date, work_list

        usecase = self._usecase(use_case, "read")
        day = outcome_date or next_outcome_date(self._platform.reader, usecase.name)
        if day is None:
            raise NotFoundError(f"nothing has been scored for {usecase.name} yet, so there is no work-list")
        found = work_list(self._platform.reader, usecase.name, day, rows, usecase.action)
        return {
            "use_case": usecase.name,
            "predicts": usecase.label.description,
            "outcome_date": day.isoformat(),
            "currency": usecase.currency,
            "capacity": usecase.capacity,
            "rows": [
                {
                    "priority": row["priority"],
                    "entity": mark(row["entity_id"]),
                    "decided_at": plain(row["decision_time"].astimezone(UTC)),
                    "slot": row["slot"],
                    "probability": plain(row["probability"]),
                    "expected_cost": plain(row["expected_cost"]),
                    **_reasons(row["reason_codes"]),
                    "model_version": row["model_version"],
                    "attributes": marked(row["attributes"] or {}),
                }
                for row in found
            ],
        }

    def explain(self, use_case: UseCaseName, entity: Entity, decision_time: DecisionTime = None) -> Answer:
        """Why an entity has its probability, and where the number comes from.

        The log-odds as base plus what each cause adds, the features that were scored, the events that were known, the
        model with who made it champion and why, and whether the number was made again from events, code and model. It
        computes all of that again, and takes seconds.
        """
        from ml_assets.lifecycle.lineage import explain_prediction

        usecase, platform = self._usecase(use_case, "explain"), self._platform
        found = explain_prediction(
            platform.lake, platform.registry, platform.reader, usecase, _entity(entity), _utc(decision_time),
            threads=platform.settings.threads,
        )  # fmt: skip
        said, line = found.prediction, found.promotion
        events = found.sources[-_EVENTS:]
        return {
            "use_case": usecase.name,
            "entity": mark(said["entity_id"]),
            "decided_at": plain(said["decision_time"].astimezone(UTC)),
            "slot": said["slot"],
            "outcome_date": plain(said["outcome_date"]),
            "probability": plain(said["probability"]),
            "expected_cost": plain(said["expected_cost"]),
            "currency": usecase.currency,
            "attributes": marked(said["attributes"] or {}),
            **_reasons(said["reason_codes"], whole=True),
            "features": marked(dict(found.features or {})),
            "model": {
                "version": said["model_version"],
                "candidate": found.run.tags.get("candidate"),
                "trained_as_of": found.run.tags.get("training_date"),
                "made_champion_by": mark(line.actor) if line else None,
                "because": mark(line.reason) if line else None,
                "code": said["git_commit"],
                "mlflow_run": said["mlflow_run_id"],
            },
            "made_again": {"probability": plain(found.probability_anew), "same": found.reproduced},
            "events_known": len(found.sources),
            "events": [
                {
                    "event": one.event,
                    "id": mark(one.event_id),
                    "happened_at": plain(one.event_time.astimezone(UTC)),
                    "known_at": plain(one.known_at.astimezone(UTC)),
                }
                for one in events
            ],
        }

    def similar_cases(
        self,
        use_case: UseCaseName,
        entity: Entity,
        decision_time: DecisionTime = None,
        rows: Annotated[int, Field(ge=1, le=50, description="past cases to return, the most similar first")] = 10,
    ) -> Answer:
        """The past decisions that are most like an entity's, and what came of each.

        Similar is what has about the same features and causes, at the same slot. Each case has its probability then,
        whether it was on the list, which action was proposed and what was done, and its outcome. Only outcomes known by
        the decision count.
        """
        from ml_assets.lifecycle.similar import find_similar

        usecase, platform = self._usecase(use_case, "explain"), self._platform
        found = find_similar(
            platform.lake, platform.registry, platform.reader, usecase, _entity(entity), _utc(decision_time),
            limit=rows, threads=platform.settings.threads, models=self._models,
        )  # fmt: skip
        word = usecase.label.probability_of
        return {
            "use_case": usecase.name,
            "entity": mark(found.prediction["entity_id"]),
            "probability": plain(found.prediction["probability"]),
            "in_short": found.said(usecase),
            "cases": [
                {
                    "entity": mark(case.entity_id),
                    "decided_at": plain(case.decision_time.astimezone(UTC)),
                    "outcome": word if case.label else f"no {word}",
                    "outcome_known_at": plain(case.label_known_at.astimezone(UTC)),
                    "probability": plain(case.probability),
                    "handling": case.handling,
                    "proposed_action": case.action,
                    "done": case.done(usecase.causes),
                    "distance_in_log_odds": plain(case.distance),
                    "attributes": marked(case.attributes or {}),
                }
                for case in found.cases
            ],
        }

    def alerts(
        self,
        use_case: Annotated[
            str | None, Field(max_length=64, description="only of this use case; all that may be read if not given")
        ] = None,
        rows: Annotated[int, Field(ge=1, le=MOST_ROWS, description="open alerts to return, the newest first")] = 50,
    ) -> Answer:
        """What is wrong now: open alerts with severity, message and who has acknowledged them.

        Also the rules that do not stand well (firing, in error, not evaluated in time), and when a rule was evaluated
        last: no open alert means little if none was evaluated.
        """
        from ml_assets.database.alerts import acknowledged, last_heartbeat, open_alerts
        from ml_assets.lifecycle.alerts import states

        wanted = self._readable(use_case)
        engine, now = self._platform.reader, datetime.now(UTC)
        found = [line for line in open_alerts(engine) if line.use_case in wanted]
        known, beat = acknowledged(engine), last_heartbeat(engine)
        stands = [
            one
            for one in states(engine, list(self._usecases.values()), now)
            if one.rule.use_case in wanted and one.state != "ok"
        ]
        return {
            "evaluated_last_at": plain(beat.astimezone(UTC)) if beat else None,
            "open": len(found),
            "alerts": [
                {
                    "rule": f"{line.use_case}/{line.rule}",
                    "severity": line.severity,
                    "kind": line.kind,
                    "since": plain(line.at.astimezone(UTC)),
                    "key": mark(line.key),
                    "message": mark(line.message),
                    "acknowledged_by": mark(known[line.event_id or ""]) if line.event_id in known else None,
                }
                for line in reversed(found[-rows:])
            ],
            "rules_not_well": [
                {"rule": one.rule.full_name, "state": one.state, "why": mark(one.last.why)}
                for one in stands
                if one.last
            ],
            "rules_never_evaluated": sum(one.last is None for one in stands),
        }

    def reports(
        self,
        use_case: UseCaseName,
        report: Annotated[str, Field(max_length=64, description="name of a report; without one, all are listed")] = "",
        day: Annotated[date | None, Field(description="date of the report; the newest scored one if not given")] = None,
        rows: Annotated[int, Field(ge=1, le=MOST_ROWS, description="rows of each table to return")] = 50,
    ) -> Answer:
        """A report of a date as summary and tables, as of its time of day; or which reports there are."""
        from ml_assets.lifecycle.reports import newest_day, report_content, report_of, reports_of

        usecase, platform = self._usecase(use_case, "read"), self._platform
        if not report:
            return {
                "use_case": usecase.name,
                "reports": [
                    {"name": one.name, "title": one.title, "about": one.description, "made": one.cadence}
                    for one in reports_of(usecase).values()
                ],
            }
        of = report_of(usecase, report)
        asked = day or newest_day(platform.reader, usecase)
        if asked is None:
            raise NotFoundError("nothing has been scored yet, so no date is the newest", to_do="give the argument day")
        content = report_content(platform.lake, platform.reader, usecase, of, asked, threads=platform.settings.threads)
        return {
            "use_case": usecase.name,
            "report": of.name,
            "title": of.title,
            "date": asked.isoformat(),
            "currency": usecase.currency,
            "summary": mark(content.summary),
            "tables": [
                {
                    "title": mark(section.title) if section.title else "",
                    "columns": {column.name: column.heading(usecase.currency) for column in section.columns},
                    "rows_in_all": len(section.rows),
                    "rows": [
                        {column.name: marked(row[column.name]) for column in section.columns}
                        for row in section.rows[:rows]
                    ],
                }
                for section in content.sections
            ],
        }

    def model_status(
        self,
        use_case: Annotated[
            str | None, Field(max_length=64, description="only of this use case; all that may be read if not given")
        ] = None,
    ) -> Answer:
        """Which use cases there are, and how each stands: data, champion, challenger, canary, newest scores.

        Of the champion: since when, by whom and why, and how good it was on days that it had not seen.
        """
        wanted = self._readable(use_case)
        return {"use_cases": [self._status(one) for one in self._usecases.values() if one.name in wanted]}

    def _status(self, usecase: UseCase) -> Answer:
        from ml_assets.lifecycle.champion import agreement
        from ml_assets.lifecycle.overview import overview
        from ml_assets.lifecycle.standing import champion_facts

        platform = self._platform
        opened = (platform.registry, platform.reader, usecase)
        found, facts, both = overview(platform.lake, *opened), champion_facts(*opened), agreement(*opened)
        scores, request, canary = found.newest_scores, found.request, found.canary
        return {
            "use_case": usecase.name,
            "title": usecase.title,
            "about": usecase.description,
            "tier": usecase.tier,
            "landed_until": plain(found.landed_until),
            "newest_features": plain(found.newest_features),
            "newest_scores": {
                "decision_date": plain(scores.decision_date),
                "model_version": scores.model_version,
                "predictions": scores.predictions,
                "mean_probability": plain(scores.mean_probability),
                "expected_cost": plain(scores.expected_cost),
                "scored_at": plain(scores.last_scored_at.astimezone(UTC)),
            }
            if scores
            else None,
            "champion": {
                "version": facts.line.to_version,
                "candidate": facts.candidate,
                "trained_as_of": facts.training_date,
                "since": plain(facts.line.recorded_at.astimezone(UTC)),
                "by": mark(facts.line.actor),
                "because": mark(facts.line.reason),
                "metrics_on_unseen_days": {name: plain(value) for name, value in facts.metrics.items()},
            }
            if facts
            else None,
            "registry_agrees": both.agrees,
            "challenger_version": found.challenger,
            "awaits_approval": {"version": request.to_version, "asked_by": mark(request.actor)} if request else None,
            "canary": {"version": canary.to_version, "runs": canary.action == "canary", "share": canary.share}
            if canary
            else None,
            "held_up": [mark(line) for line in (*found.waits, *([found.late] if found.late else []))],
        }

    @cached_property
    def _models(self) -> Any:
        from ml_assets.lifecycle.opened_models import OpenedModels

        return OpenedModels(self._platform.registry, self._platform.settings.threads)

    def _usecase(self, name: str, verb: str) -> UseCase:
        """Return a use case, if the caller may do this with it.

        Raises:
            NotFoundError: there is none of that name.
            ForbiddenError: the caller may not.
        """
        if name not in self._usecases:
            raise NotFoundError(f"there is no such use case; there are {', '.join(self._usecases)}")
        if (caller := self._caller()) is not None:
            caller.require(name, verb)
        return self._usecases[name]

    def _readable(self, name: str | None) -> set[str]:
        """Return the use case that is asked for, else all that the caller may read; and the platform with all."""
        if name is not None:
            return {self._usecase(name, "read").name}
        caller = self._caller()
        if caller is None:
            from ml_assets.lifecycle.alert_rules import PLATFORM

            return {*self._usecases, PLATFORM}
        return {one for one in self._usecases if _may(caller, one)}


def _may(caller: Caller, name: str) -> bool:
    try:
        caller.require(name, "read")
    except ForbiddenError:
        return False
    return True


def _entity(given: str) -> str:
    entity = unmark(given)
    if not entity or len(entity) > _LONGEST_ENTITY:
        raise InputError(f"entity has {len(entity):,} characters", to_do=f"give 1 to {_LONGEST_ENTITY}")
    if "\0" in entity:
        raise InputError("entity holds a NUL character", to_do="give the id as work_list gives it")
    return entity


def _utc(moment: datetime | None) -> datetime | None:
    """Return a time with its zone; without one it is UTC."""
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment


def _reasons(codes: Mapping[str, Any] | None, *, whole: bool = False) -> Answer:
    """Return the likely cause and action, and the sum that the reasons are; these words are ours, not of events."""
    if codes is None:
        return {"cause": None, "proposed_action": None, "reasons": "none: beyond the team's list"} if whole else {}
    said = {"cause": codes.get("cause"), "proposed_action": codes.get("action")}
    if not whole:
        return said
    shared = sorted(codes["contributions"].items(), key=lambda item: -item[1])
    return said | {
        "log_odds": plain(codes["log_odds"]),
        "base_log_odds": plain(codes["base"]),
        "added_log_odds_by_cause": {cause: plain(value) for cause, value in shared},
    }
