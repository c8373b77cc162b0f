"""Simulated days for the campaign of drift: features and labels by the SQL of settlement_fails, quiet and changed."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.contracts import TIMESTAMP
from ml_assets.features import AsOfDatabase
from ml_assets.features.days import day_end
from ml_assets.learning.slices import with_slices
from ml_assets.learning.training_set import build_training_set
from ml_assets.local.simulation.market import MarketConfig, simulate
from ml_assets.spec import UseCase
from ml_assets_tests.usecases.settlement import USE_CASE, curated_market, references


@dataclass
class Days:
    """Features, and labels with the date on which they were known, of the business days of a market."""

    days: Sequence[date]
    features: pa.Table
    labels: pa.Table

    def training_set(self, number: int, usecase: UseCase = USE_CASE, since: date | None = None) -> pa.Table:
        """The training set as of the end of a day, of the decision dates since a change alone if one is given."""
        as_of = datetime.combine(self.days[number], time.max, tzinfo=day_end(self.days[number]).tzinfo)
        known = self.labels.filter(pc.less_equal(self.labels["label_known_at"], pa.scalar(as_of, TIMESTAMP)))
        features = self.features if since is None else self.features.filter(pc.field("decision_date") >= since)
        rows = build_training_set(
            features.drop_columns(["attributes"]), known.drop_columns(["outcome_date"]), usecase.split, as_of
        )
        test = rows.filter(pc.equal(rows["part"], "test"))["decision_time"]
        described = self.features.select(["entity_id", "decision_time", "attributes"])
        return with_slices(USE_CASE, rows, described.filter(pc.is_in(described["decision_time"], pc.unique(test))))

    def but(self, other: "Days") -> "Days":
        """These days, with the days of the other ones in their place."""
        dates = pa.array(other.days, pa.date32())

        def replaced(ours: pa.Table, theirs: pa.Table, column: str) -> pa.Table:
            kept = ours.filter(pc.invert(pc.is_in(ours[column], dates)))
            return pa.concat_tables([kept, theirs]).sort_by(
                [("decision_time", "ascending"), ("entity_id", "ascending")]
            )

        return Days(
            [*(day for day in self.days if day < other.days[0]), *other.days],
            replaced(self.features, other.features, "decision_date"),
            replaced(self.labels, other.labels, "outcome_date"),
        )


def days_of(config: MarketConfig, first: int = 0) -> Days:
    """Return the days of a market from the one with this number on."""
    market = simulate(config)
    events = curated_market(market)
    days = market.world.calendar[first : config.days]
    with (
        tempfile.TemporaryDirectory() as folder,
        AsOfDatabase(USE_CASE, events, references(market, Path(folder)), threads=1) as history,
    ):
        features = pa.concat_tables(history.features(at) for day in days for at in USE_CASE.decision_times(day))
        asked = features.select(["entity_id", "decision_time", "outcome_date"])
        labels = pa.concat_tables(
            history.labels(day, asked.filter(pc.equal(asked["outcome_date"], pa.scalar(day)))) for day in days[:-1]
        )
    return Days(days, features, labels)
