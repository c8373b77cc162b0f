"""The truth: the probability from which each outcome was drawn. No asset reads it; models are measured against it."""

from datetime import time

import numpy as np
import pyarrow as pa

from ml_assets.local.simulation.events import instruction_ids
from ml_assets.local.simulation.outcomes import Instructions
from ml_assets.local.simulation.world import SETTLEMENT_DAYS, World

# Slot: decision time (UTC), and business days from trade date to decision date.
SLOTS = {"end_of_trade_date": (time(20), 0), "isd_minus_1": (time(15), 1), "isd_morning": (time(7), 2)}


def truth_table(world: World, trades: Instructions) -> pa.Table:
    """Return one row per decision: entity_id, slot, decision_time, outcome_date, probability, reachable, outcome.

    `reachable` is the probability of a fail, given all that the simulator has shown by the decision time and what a
    long history would teach: the counterparty's quality and the law of the market. `probability` knows the market's
    stress on the trade date too, which shows in nothing but the outcomes of that date, a day or two after it had to be
    known. Without stress they are equal. Dirt is left out: it hides a few messages from a model for some hours.
    """
    ids = instruction_ids(world, trades)
    calendar = np.array(world.calendar, dtype="datetime64[D]")
    parts = []
    for slot, (at, days) in SLOTS.items():
        decided = calendar[trades.day + days].astype("datetime64[ms]") + np.timedelta64(at.hour, "h")
        # A late instruction is not there yet in the evening of its trade date.
        there = ~trades.late if slot == "end_of_trade_date" else np.ones(len(trades), dtype=bool)
        columns = {
            "entity_id": pa.array(ids[there]),
            "slot": pa.array([slot] * int(there.sum())),
            "decision_time": pa.array(decided[there]).cast(pa.timestamp("us", tz="UTC")),
            "outcome_date": pa.array(calendar[trades.day + SETTLEMENT_DAYS][there]),
            "probability": pa.array(trades.probability[slot][there]),
            "reachable": pa.array(trades.reachable[slot][there]),
            "outcome": pa.array(trades.failed[there].astype(np.int8)),
        }
        parts.append(pa.table(columns))
    return pa.concat_tables(parts)
