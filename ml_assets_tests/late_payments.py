"""A use case as a data scientist would add it: one folder of a few files, written into a package made for the test.

Invoices are raised daily for a few payers of different habits; the model predicts which will not be paid on their
due date, two business days later.
"""

import importlib
import random
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import msgspec

from ml_assets.calendars import BusinessCalendar
from ml_assets.local.simulation.messages import Message
from ml_assets.spec import UseCase

CALENDAR = BusinessCalendar("ECB")
FIRST = date(2026, 1, 5)
PAYERS = 12

_FILES = {
    "contracts.py": """
        from datetime import date
        from ml_assets.contracts import Event, ReferenceRow

        class Invoice(Event, frozen=True, kw_only=True):
            invoice_id: str
            payer: str
            amount: float
            due_date: date

        class Payment(Event, frozen=True, kw_only=True):
            invoice_id: str
            payer: str

        class Payer(ReferenceRow, frozen=True, kw_only=True):
            payer: str
            country: str
    """,
    "features/decisions.sql": """
        SELECT invoice_id AS entity_id, due_date AS outcome_date, amount * 0.01 AS cost_if_fail,
               json_object('payer', payer)::VARCHAR AS attributes, amount, payer
        FROM invoices
        WHERE event_time::DATE = getvariable('decision_date')
    """,
    "features/payer.sql": """
        WITH past AS (
            SELECT i.payer, (p.invoice_id IS NULL OR p.event_time::DATE > i.due_date)::INT AS late
            FROM invoices i LEFT JOIN payments p USING (invoice_id)
            WHERE i.due_date < getvariable('decision_date')
        ), rates AS (SELECT payer, (sum(late) + 1) / (count(*) + 4) AS rate FROM past GROUP BY payer)
        SELECT entity_id, rate AS payer_late_rate, payers.country AS payer_country
        FROM decisions LEFT JOIN rates USING (payer) LEFT JOIN payers USING (payer)
    """,
    "label.sql": """
        SELECT entity_id, (p.invoice_id IS NULL)::INT AS label
        FROM (SELECT DISTINCT entity_id FROM decisions)
        LEFT JOIN payments p ON p.invoice_id = entity_id AND p.event_time::DATE <= getvariable('decision_date')
    """,
    "usecase.py": """
        from datetime import UTC, date, datetime, time
        from pathlib import Path
        from ml_assets.calendars import BusinessCalendar
        from ml_assets.learning.candidates import logistic, rule
        from ml_assets.spec import (
            FEEDBACK, Cause, DriftSpec, EventSpec, Feature, GateSpec, LabelSpec, MonitoringSpec, ReferenceSpec,
            SearchSpec, SinceChangeSpec, SliceSpec, Slot, SplitSpec, Uniform, UseCase,
        )
        from .contracts import Invoice, Payer, Payment

        CALENDAR = BusinessCalendar("ECB")

        USE_CASE = UseCase(
            name="NAME", title="Late payments", description="Which invoices are paid late", entity="invoice",
            owner="receivables", tier="low", folder=Path(__file__).parent, calendar=CALENDAR,
            first_partition=date(2026, 1, 5),
            events=(
                EventSpec("invoices", "NAME_invoices", Invoice, "Invoices raised.",
                          rules={"amount is not positive": "amount <= 0"}, max_quarantine_rate=0.2),
                EventSpec("payments", "NAME_payments", Payment, "Payments received.", max_quarantine_rate=0.2),
            ),
            references=(ReferenceSpec("payers", Payer, ("payer",), "Who pays."),),
            slots=(Slot("evening", time(18)),),
            features=(
                Feature("amount", "Amount of the invoice", "EUR"),
                Feature("payer_late_rate", "Share of the payer's earlier invoices that were late", cause="PAYER"),
                Feature("payer_country", "Country of the payer", kind="categorical"),
            ),
            causes=(Cause("PAYER", "the payer pays late", "remind the payer"),),
            label=LabelSpec(
                "late", "Not paid by the due date.",
                lambda day: datetime.combine(CALENDAR.next(day), time(6), tzinfo=UTC),
            ),
            split=SplitSpec(train_days=8, calibration_days=3, test_days=5, folds=2, fold_days=2),
            candidates=(rule("payer_late_rate", description="Worst payers first"),
                        logistic(search=SearchSpec({"C": Uniform(0.01, 10.0, log=True)}, trials=3, seconds=60))),
            capacity=5,
            # A few days of a few invoices: limits that only a broken model would miss.
            limits=("Payers whose habits have just changed look as they did before.",),
            gate=GateSpec(
                min_test_positives=5, min_lift=0.0, max_calibration_error=0.5, max_score_psi=10.0, max_regret=1.0,
                min_gain_over_rule_low=-1.0,
                slices=(SliceSpec("country", "payer_country", 5, 0.5), SliceSpec("feedback", FEEDBACK)),
            ),
            value="amount",
            monitoring=MonitoringSpec(
                since_change=SinceChangeSpec(), drift=DriftSpec(min_rows=40, groups=("attributes.payer",))
            ),
        )
    """,
}


def make_package(folder: Path, name: str = "late_payments") -> str:
    """Write a package with the use case into a folder and return its import path; the folder goes on sys.path."""
    package = f"pkg_{folder.name.replace('-', '_')}_{name}"
    for file, text in {"__init__.py": "", f"{name}/__init__.py": "", **_in(name)}.items():
        path = folder / package / file
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = text.strip("\n").splitlines()
        path.write_text("\n".join(line.removeprefix(" " * 8) for line in lines).replace("NAME", name) + "\n")
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    return package


def messages(
    days: int, *, per_day: int = 60, seed: int = 1, name: str = "late_payments", stops: tuple[str, date] | None = None
) -> Iterator[Message]:
    """Yield the invoices and payments of a number of business days, in the order in which they became known.

    `stops` is a payer, and the due date of the first invoices that it does not pay in time.
    """
    chance = random.Random(seed)
    found: list[Message] = []
    last = CALENDAR.add(FIRST, days - 1)
    for day in CALENDAR.between(FIRST, last):
        for number in range(per_day):
            payer = number % PAYERS
            raised = datetime.combine(day, time(9), tzinfo=UTC) + timedelta(minutes=number)
            due = CALENDAR.add(day, 2)
            invoice = f"{day}-{number}"
            found.append(
                message(
                    f"{name}_invoices",
                    raised,
                    event_id=f"i-{invoice}",
                    invoice_id=invoice,
                    payer=f"P{payer}",
                    amount=float(chance.randint(100, 10_000)),
                    due_date=due,
                )
            )
            late = chance.random() < 0.05 + 0.7 * payer / PAYERS
            late |= stops is not None and (f"P{payer}" == stops[0] and due >= stops[1])
            paid = datetime.combine(CALENDAR.next(due) if late else due, time(12), tzinfo=UTC)
            if paid.date() <= last:
                found.append(
                    message(f"{name}_payments", paid, event_id=f"p-{invoice}", invoice_id=invoice, payer=f"P{payer}")
                )
    yield from sorted(found, key=lambda m: m.timestamp_ms)


def message(topic: str, event_time: datetime, **payload: object) -> Message:
    """Return a message known when it happened."""
    value = msgspec.json.encode({"event_time": event_time, **payload})
    return Message(topic, str(payload["event_id"]).encode(), value, int(event_time.timestamp() * 1000))


def write_reference(root: Path, name: str = "late_payments") -> None:
    """Drop the file of payers."""
    folder = root / name / "payers"
    folder.mkdir(parents=True)
    rows = [f"P{n},{'DE' if n % 2 else 'FR'},2026-01-01,2026-01-01T00:00:00Z" for n in range(PAYERS)]
    (folder / "2026-01-01.csv").write_text("\n".join(["payer,country,valid_from,published_at", *rows]) + "\n")


def usecase_of(package: str) -> UseCase:
    """Return the use case of a made package."""
    from ml_assets.usecases import discover

    (usecase,) = discover([package])
    return usecase


def _in(name: str) -> dict[str, str]:
    return {f"{name}/{file}": text for file, text in _FILES.items()}
