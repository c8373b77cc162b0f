"""A desk on a real database, with a list that is made up: of it a morning's worth of open instructions."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
from sqlalchemy import Engine
from starlette.testclient import TestClient

from ml_assets.contracts import Event
from ml_assets.database.connect import connect
from ml_assets.database.feedback import feedback_lines
from ml_assets.database.predictions import upsert_predictions
from ml_assets.desk.app import Desk, build_app
from ml_assets.desk.people import Door, Forms, by_proxy, networks, read_roles
from ml_assets.lake import curated_table, reference_table
from ml_assets.platform import Platform
from ml_assets.predictions.feedback import Line
from ml_assets.settings import Settings
from ml_assets.spec import UseCase
from ml_assets.usecases.settlement_fails.contracts import SettlementInstruction
from ml_assets.usecases.settlement_fails.usecase import USE_CASE as SETTLEMENT
from ml_assets_tests.database.factories import prediction, predictions
from ml_assets_tests.usecases.settlement import curated_by_hand

DAY = date(2026, 3, 30)
MORNING = datetime(2026, 3, 30, 7, tzinfo=UTC)
NOW = MORNING + timedelta(minutes=30)
# A team of five, so that a list has rows beyond its capacity.
USE_CASE = replace(SETTLEMENT, capacity=5)
ROLES = '{"analysts": {"settlement_fails": "analyst"}, "leads": {"*": "lead"}, "others": {"cns_fails": "lead"}, "guests": {"settlement_fails": "viewer"}}'  # fmt: skip # noqa: E501
PROXY = "10.1.0.0/24"


class Ground(Platform):
    """A platform whose database is that of a test."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        super().__init__(settings)
        self._made = engine

    @cached_property
    def engine(self) -> Engine:
        return self._made


@dataclass
class Made:
    """A desk, its clock, and a browser without a screen for each person."""

    engine: Engine
    home: Path
    door: Door | None = None
    usecases: tuple[UseCase, ...] = (USE_CASE,)
    now: datetime = NOW
    every: float = 0.0
    started: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Start the desk anew, as a pod that was replaced."""
        settings = Settings(
            home=self.home, postgres_url="postgresql://elsewhere", dagster_ui="http://dagster.bank.example"
        )
        door = self.door or by_proxy(networks(PROXY), read_roles(ROLES))
        self.desk = Desk(
            Ground(settings, self.engine), self.usecases, clock=lambda: self.now, door=door, forms=Forms(b"secret"),
            every_seconds=self.every,
        )  # fmt: skip
        self.desk._ask_clock = lambda: self.now
        self.app = build_app(self.desk)

    def person(self, name: str, group: str = "analysts", peer: str = "10.1.0.7") -> TestClient:
        headers = {"x-forwarded-email": f"{name}@bank.example", "x-forwarded-groups": group}
        return TestClient(
            self.app, base_url="http://desk.bank.example", client=(peer, 40000), headers=headers,
            raise_server_exceptions=False, follow_redirects=False,
        )  # fmt: skip

    def at(self, moment: datetime) -> None:
        """Let it be a time."""
        self.now = moment
        self.desk._time = (0.0, moment)

    def lines(self) -> list[Line]:
        return feedback_lines(self.engine, USE_CASE.name, DAY)


PATH = f"/{USE_CASE.name}/{DAY}"


def reasons(cause: str, **contributions: float) -> str:
    named = next(one for one in USE_CASE.causes if one.code == cause)
    said = {
        "cause": cause, "name": named.name, "action": named.action, "base": -3.0,
        "log_odds": -3.0 + sum(contributions.values()), "contributions": contributions,
    }  # fmt: skip
    return json.dumps(said)


def attributes(number: int, **more: object) -> str:
    made: dict[str, object] = {
        "security": f"Bond {number}", "isin": f"DE00000000{number:02}", "market": "XETR" if number % 2 else "XPAR",
        "counterparty": f"Counterparty {number % 3}", "counterparty_tier": "core", "movement": "DELI",
        "amount": 1_000_000 * number, "pset": "DAKVDEFFXXX", "cut_off": "16:00",
    }  # fmt: skip
    return json.dumps(made | more)


def row(number: int, probability: float, **more: Any) -> dict[str, object]:
    given: dict[str, object] = {
        "use_case": USE_CASE.name, "decision_time": MORNING, "decision_date": DAY, "outcome_date": DAY,
        "slot": "isd_morning", "model_name": USE_CASE.name, "attributes": attributes(number),
        "reason_codes": reasons("LACK" if number % 2 else "NMAT", LACK=1.5, NMAT=0.5, OTHER=-0.25),
    }  # fmt: skip
    return prediction(f"I{number}", probability, **given | more)


def score(engine: Engine, *rows: Mapping[str, object]) -> None:
    upsert_predictions(engine, predictions(*map(dict, rows)))


def morning(engine: Engine, **of_first: Any) -> None:
    """Score eight instructions: the dearest first, so five are the team's."""
    score(engine, *(row(n, 0.9 - n / 10, **(of_first if n == 1 else {})) for n in range(1, 9)))


@contextmanager
def made_desk(url: str, home: Path, **options: Any) -> Iterator[Made]:
    engine = connect(url)
    try:
        yield Made(engine, home, **options)
    finally:
        engine.dispose()


def told(made: Made, references: Mapping[str, pa.Table], **events: list[Event]) -> None:
    """Let the lake have the instructions I1 to I3, of 1,000 pieces each, and these events of them, by name."""
    security = references["securities"].to_pylist()[0]
    instructions = [
        SettlementInstruction(
            event_id=f"SI{number}", event_time=MORNING - timedelta(days=4), instruction_id=f"I{number}",
            uti=f"U{number}", isin=security["isin"], movement="DELI", payment="APMT", quantity=1000, amount=90_000.0,
            counterparty_lei="L", account="A", pset="DAKVDEFFXXX", trade_date=DAY - timedelta(days=4),
            intended_settlement_date=DAY,
        )
        for number in range(1, 4)
    ]  # fmt: skip
    lake = made.desk.platform.lake
    for name, rows in curated_by_hand({"settlement_instructions": instructions, **events}).items():
        days = rows["business_date"].unique().to_pylist()
        lake.replace(curated_table(USE_CASE, USE_CASE.event(name)), rows, "business_date", days)
    for reference in USE_CASE.references:
        lake.overwrite(reference_table(USE_CASE, reference), references[reference.name])


def fields(page: str) -> dict[str, str]:
    """What the form of a page sends beside its buttons."""
    import re

    hidden = dict(re.findall(r'<input type="hidden" name="(csrf|key|seen|snapshot|back)" value="([^"]*)"', page))
    return {name: value.replace("&amp;", "&") for name, value in hidden.items()}


def send(client: TestClient, do: str, *entities: str, page: str | None = None, **more: str) -> Any:
    """Open the list (unless its page is given) and press a button."""
    shown = client.get(PATH).text if page is None else page
    body = fields(shown) | {"do": do, "entity": list(entities)} | more
    return client.post(f"{PATH}/feedback", data=body)
