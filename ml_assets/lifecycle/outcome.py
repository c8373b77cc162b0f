"""The result of a command in a few lines, for the person who ran it; and commands that would have nothing to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

from ml_assets.errors import NotFoundError
from ml_assets.governance.conditions import sentence
from ml_assets.lake import curated_table, features_table, labels_table, landing_table, quarantine_table
from ml_assets.landing.anew import known_too_late
from ml_assets.lifecycle.evaluation import COMPARED, VERDICT
from ml_assets.registry import CHALLENGER

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from ml_assets.database.promotions import LedgerEntry
    from ml_assets.lake import Lake
    from ml_assets.learning.gate import Verdict
    from ml_assets.registry import ModelRegistry
    from ml_assets.spec import UseCase

_FIRST_OF_LIST = 3
_COUNTED = ("impossible", "decisions", "labelled", "waiting", "without_outcome")
# What the asset `training_set` and its check on leaks say that a person is told after a retraining.
_OF_TRAINING = ("fewer dates than asked", "had happened when decided", "values that alone tell the outcome")


def refuse_idle(lake: Lake, engine: Engine, usecase: UseCase, verb: str, days: Sequence[date]) -> None:
    """Do nothing if a verb has something to work on for these dates.

    Raises:
        LookupError: nothing has landed, the dates have no features, or there is no champion to score with; with the
            command that comes first.
    """
    if verb == "ingest":
        topics = [event.topic for event in usecase.events]
        if all(lake.version(landing_table(topic)) is None for topic in topics):
            raise NotFoundError(
                f"nothing has landed of {', '.join(topics)}: is there such a topic on the broker? `ml-assets land` "
                "lands what it holds"
            )
    elif verb == "backfill":
        if all(lake.version(curated_table(usecase, event)) is None for event in usecase.events):
            raise NotFoundError(
                f"{usecase.name} has no curated events to make features of: `ml-assets ingest {usecase.name} --from "
                f"{days[0]} --to {days[-1]}` makes them, of what has landed"
            )
    elif verb == "score":
        made = _rows(lake, features_table(usecase), "decision_date", None)
        if not made.keys() & set(days):
            newest = f"the newest features are of {max(made)}" if made else "there are no features yet"
            raise NotFoundError(
                f"{usecase.name} has nothing to score from {days[0]} to {days[-1]}: {newest}. "
                f"`ml-assets ingest {usecase.name} --from {days[0]} --to {days[-1]}` makes them, of what has landed"
            )
        _refuse_without_champion(engine, usecase)


def _refuse_without_champion(engine: Engine, usecase: UseCase) -> None:
    from ml_assets.database.promotions import last_change, open_request

    name = usecase.name
    if last_change(engine, name) is not None:
        return
    if request := open_request(engine, name):
        raise NotFoundError(
            f"{name} has no champion to score with: version {request.to_version} awaits approval by another person "
            f"than {request.actor}: `ml-assets approve {name}`"
        )
    raise NotFoundError(
        f"{name} has no champion to score with. `ml-assets retrain {name} --date <date>` trains one and says what the "
        f"gate asks; a model that the gate refused is promoted by a person: "
        f'`ml-assets promote {name} --override "<why>"`'
    )


def came_out(
    lake: Lake,
    registry: ModelRegistry,
    engine: Engine,
    usecase: UseCase,
    verb: str,
    days: Sequence[date],
    *,
    told: Sequence[Mapping[str, Any]] = (),
) -> Iterator[str]:
    """Yield what a run made, as lines; `told` is the metadata of the assets of features, labels and training set."""
    if verb == "ingest":
        yield from _ingested(lake, usecase, days, told)
    elif verb == "backfill":
        yield from _backfilled(lake, usecase, days, told)
    elif verb == "retrain":
        yield from _trained_on(told)
        yield from _retrained(registry, engine, usecase)
    else:
        yield from _scored(lake, engine, usecase, days)


def _ingested(lake: Lake, usecase: UseCase, days: Sequence[date], told: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for event in usecase.events:
        kept = _rows(lake, curated_table(usecase, event), "business_date", days)
        bad = _rows(lake, quarantine_table(usecase, event), "business_date", days)
        yield (
            f"  {event.name}: {sum(kept.values()):,} rows on {len(kept)} of {len(days)} dates, "
            f"{sum(bad.values()):,} in quarantine"
        )
    for event in usecase.events:
        if lake.version(landing_table(event.topic)) is None:
            yield f"  Nothing has ever landed of topic {event.topic}: is there such a topic on the broker?"
    yield "  Quarantine holds what broke a rule or the contract; the asset's metadata in `ml-assets ui` say which"
    decided = sum(_rows(lake, features_table(usecase), "decision_date", days).values())
    labelled = sum(_rows(lake, labels_table(usecase), "known_date", days).values())
    yield f"  {decided:,} decisions with features; {labelled:,} outcomes became known"
    yield from _decided(told)
    if late := known_too_late(lake, usecase, max(days)):
        yield f"  {late}"
    elif not decided:
        yield (
            "  No decision was made. Are the events of these dates known by then? `land --replay` takes the broker's "
            "times; without it everything is known since it landed"
        )


def _backfilled(lake: Lake, usecase: UseCase, days: Sequence[date], told: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    made = _rows(lake, features_table(usecase), "decision_date", days)
    yield f"  {sum(made.values()):,} decisions with features on {len(made)} of {len(days)} dates"
    yield from _decided(told)
    yield (
        "  Labels are as they were. Where a date decides other entities than before, they and the scores follow: "
        f"`ml-assets ingest {usecase.name}`, then `ml-assets score {usecase.name}`"
    )


def _decided(told: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield which decisions were left out, lack something or wait."""
    number = {name: sum(one.get(name, 0) for one in told) for name in _COUNTED}
    if number["impossible"]:
        yield f"  {number['impossible']:,} decisions were left out: they can never be labelled; the asset says why"
    if number["decisions"]:
        yield (
            f"  Of {number['decisions']:,} decisions whose outcome is due on these dates {number['labelled']:,} are "
            f"labelled, {number['waiting']:,} wait, {number['without_outcome']:,} have no outcome"
        )
    lacks = Counter[str]()
    for one in told:
        # Labels tell of the same decisions, days later.
        lacks.update(one.get("lacking", {}) if "decisions" not in one else {})
    yield from (f"  {count:,} decisions, {what}" for what, count in sorted(lacks.items()))
    for waits in dict.fromkeys(one["waits for"] for one in told if "waits for" in one):
        yield f"  What is not there yet waits for {waits}"


def _trained_on(told: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield what a person should know of the training set, though the training was not refused for it."""
    for one in told:
        yield from (f"  {name}: {one[name]}" for name in _OF_TRAINING if one.get(name, "none") not in ("no", "none"))


def _retrained(registry: ModelRegistry, engine: Engine, usecase: UseCase) -> Iterator[str]:
    """Yield who won, against whom, the gate's verdict, and what comes next. The ledger says who is champion."""
    from ml_assets.database.promotions import last_change
    from ml_assets.learning.gate import Verdict

    line, challenger = last_change(engine, usecase.name), registry.resolve(usecase.name, CHALLENGER)
    run_id = challenger.run_id if challenger else line.mlflow_run_id if line else None
    if run_id is None:
        yield "  no model was registered"
        return
    promoted = line is not None and line.mlflow_run_id == run_id
    version = challenger.version if challenger else line.to_version if line else 0
    candidate = registry.run(run_id).tags.get("candidate", "unknown")
    before = (line.from_version if promoted else line.to_version) if line else None
    against = f"champion version {before}" if before else "the rule"
    yield f"  version {version} ({candidate}) is the best candidate; it was compared with {against}"
    yield from _compared(registry, usecase, run_id)
    verdict = Verdict.from_json(registry.read_evidence(run_id, VERDICT))
    for compared in verdict.conditions:
        if compared.passed and compared.name.endswith(("_against_rule", "_against_champion")):
            yield f"  met: {sentence(compared)}"
    for failed in verdict.failures:
        yield f"  not met: {sentence(failed)}"
    yield from _next(engine, usecase, version, verdict, line, promoted=promoted)


def _compared(registry: ModelRegistry, usecase: UseCase, run_id: str) -> Iterator[str]:
    """Yield what each candidate was worth; nothing for a model that an earlier release has evaluated."""
    import msgspec

    from ml_assets.learning.compare import Compared

    try:
        compared = msgspec.json.decode(registry.read_evidence(run_id, COMPARED), type=Compared)
    except FileNotFoundError:
        return
    rate = compared.positives / compared.decisions if compared.decisions else 0.0
    yield (
        f"  On {compared.decisions:,} unseen decisions of {compared.first} to {compared.last}, of which {rate:.1%} "
        f"came out as {usecase.label.probability_of}:"
    )
    columns = {"validation": f"{usecase.gate.metric}, days before", usecase.gate.metric: usecase.gate.metric}
    columns |= {name: name for name in ("calibration_error", "saved_per_day")}
    wide = max(map(len, ("model", *compared.models)))
    yield f"    {'model':<{wide}}" + "".join(f"  {title:>{len(title)}}" for title in columns.values())
    for model, metrics in compared.models.items():
        cells = (f"  {_number(metrics.get(name)):>{len(title)}}" for name, title in columns.items())
        yield f"    {model:<{wide}}" + "".join(cells)


def _number(value: float | None) -> str:
    if value is None or value != value:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3f}"


def _next(
    engine: Engine, usecase: UseCase, version: int, verdict: Verdict, line: LedgerEntry | None, *, promoted: bool
) -> Iterator[str]:
    """Yield what the gate's verdict led to, and what a person does next."""
    from ml_assets.database.promotions import open_request

    name, request = usecase.name, open_request(engine, usecase.name)
    says = "yes" if verdict.passed else "no"
    if promoted and line is not None:
        why = "" if verdict.passed else f", {line.actor} decided otherwise ({line.reason})"
        yield f"  The gate says {says}{why}: version {version} is the champion, and `ml-assets score` scores with it"
        return
    stays = f"version {line.to_version} stays champion" if line else "there is no champion, so nothing is scored"
    if request is not None and request.to_version == version:
        yield (
            f"  The gate says {says}, and a person decides: `ml-assets approve {name}`, as another person than "
            f"{request.actor}. Until then {stays}"
        )
    elif verdict.passed:
        yield f"  The gate says yes, but {stays}: `ml-assets promote {name}` judges again and says why"
    else:
        yield f"  The gate says no: {stays}. What may help: more dates, better features, then retrain"
        yield f'  A person may decide otherwise: `ml-assets promote {name} --override "<why>"`'
        if usecase.needs_approval:
            yield f"  and another person then says yes: `ml-assets approve {name}`"


def _scored(lake: Lake, engine: Engine, usecase: UseCase, days: Sequence[date]) -> Iterator[str]:
    """Yield what was scored, which of the dates have nothing to score, and the top of the list."""
    from ml_assets.database.status import scored_dates
    from ml_assets.database.work_list import next_outcome_date, work_list

    for scored in scored_dates(engine, usecase.name, limit=len(days) + 20):
        if scored.decision_date in days:
            yield (
                f"  {scored.decision_date}: {scored.predictions:,} predictions by version {scored.model_version}, mean "
                f"probability {scored.mean_probability:.3f}"
            )
    made = _rows(lake, features_table(usecase), "decision_date", days)
    if without := sorted(set(days) - made.keys()):
        yield (
            f"  {len(without)} of {len(days)} dates, {without[0]} to {without[-1]}, have no features, so nothing was "
            f"scored there: `ml-assets ingest {usecase.name}` makes them, of what has landed"
        )
    day = next_outcome_date(engine, usecase.name)
    if day:
        yield f"  The work-list for outcomes of {day} begins with"
    for row in work_list(engine, usecase.name, day, _FIRST_OF_LIST) if day else []:
        yield (
            f"  {row['priority']}. {row['entity_id']}: {row['probability']:.3f}, "
            f"{row['expected_cost']:,.0f} {usecase.currency}"
        )
    if day:
        yield f"  `ml-assets work-list {usecase.name} --date {day}` shows the list; its date is the outcome's"


def _rows(lake: Lake, table: str, column: str, days: Sequence[date] | None) -> dict[date, int]:
    """Return the number of rows by date, of the dates that have any."""
    found: dict[date, int] = {}
    for file in lake.files(table, column):
        day = file.partition
        if file.rows and isinstance(day, date) and (days is None or day in days):
            found[day] = found.get(day, 0) + file.rows
    return found
