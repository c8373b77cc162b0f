"""Markets that several tests look at; each is simulated once."""

import pandas as pd
import pytest

from ml_assets.local.simulation.market import Market, MarketConfig, simulate
from ml_assets.local.simulation.truth import truth_table

SMALL = MarketConfig(days=6, instructions_per_day=150, counterparties=10, securities=25, dirty=0)


@pytest.fixture(scope="session")
def market() -> Market:
    """A small market without dirt."""
    return simulate(SMALL)


@pytest.fixture(scope="session")
def default_market() -> Market:
    """The market of the demo."""
    return simulate(MarketConfig())


@pytest.fixture(scope="session")
def truth(default_market: Market) -> pd.DataFrame:
    """The truth of the default market, one row per decision."""
    return truth_table(default_market.world, default_market.instructions).to_pandas()
