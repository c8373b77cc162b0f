"""The reference data of the simulated market, as files that somebody drops."""

import csv
from datetime import date, timedelta

import fsspec

from ml_assets.local.simulation.events import account
from ml_assets.local.simulation.world import ASSET_CLASSES, COUNTRIES, NEW_MARKET, PLACES, World

# When the annex of Delegated Regulation (EU) 2017/389 began to be applied.
_PENALTIES_SINCE = date(2022, 2, 1)
_LEAD = timedelta(days=30)
# Of ten counterparties.
_TIERS = ("core",) * 2 + ("established",) * 3 + ("other",) * 5


def write_reference_files(world: World, folder: str) -> None:
    """Write `<folder>/<reference>/<date of publication>.csv` of each reference, to a folder or an `s3://` prefix."""
    published = world.config.start - _LEAD
    for name, rows in reference_rows(world).items():
        stamped = [{"valid_from": published, **row, "published_at": f"{published}T06:00:00Z"} for row in rows]
        path = f"{folder}/{name}/{published}.csv"
        with fsspec.open(path, "w", encoding="utf-8", newline="", auto_mkdir=True) as file:
            writer = csv.DictWriter(file, list(stamped[0]))
            writer.writeheader()
            writer.writerows(stamped)


def reference_rows(world: World) -> dict[str, list[dict[str, object]]]:
    """Return the rows of each reference, by its name; `valid_from` only where it is not the date of publication."""
    return {
        "securities": _securities(world),
        "counterparties": _counterparties(world),
        "standing_settlement_instructions": _standing_instructions(world),
        "cut_offs": [{"pset": place, "cut_off": cut_off} for place, cut_off in PLACES.items()],
        "penalty_rates": [
            {"asset_class": a.name, "bp_per_day": a.penalty_bp, "valid_from": _PENALTIES_SINCE} for a in ASSET_CLASSES
        ],
    }


def _securities(world: World) -> list[dict[str, object]]:
    places = list(PLACES)
    rows: list[dict[str, object]] = []
    for number, isin in enumerate(world.isins):
        asset_class = ASSET_CLASSES[world.asset_class[number]]
        rows.append(
            {
                "isin": isin,
                "name": f"{asset_class.name.replace('_', ' ').title()} {number}",
                "cfi_code": asset_class.cfi,
                "asset_class": asset_class.name,
                "mic": NEW_MARKET if world.on_new_market[number] else asset_class.mic,
                "pset": places[world.place[number]],
            }
        )
    return rows


def _counterparties(world: World) -> list[dict[str, object]]:
    return [
        {
            "lei": lei,
            "bic": _bic(number),
            "name": f"Counterparty {number}",
            "country": _country(number),
            "tier": _TIERS[min(number * 10 // len(world.leis), 9)],
        }
        for number, lei in enumerate(world.leis)
    ]


def _standing_instructions(world: World) -> list[dict[str, object]]:
    """Return a former account and the present one of each counterparty at each place."""
    since = {True: world.config.start - timedelta(days=400), False: world.config.start - _LEAD}
    return [
        {"lei": lei, "pset": pset, "account": account(c, place, is_old=is_old), "valid_from": valid_from}
        for c, lei in enumerate(world.leis)
        for place, pset in enumerate(PLACES)
        for is_old, valid_from in since.items()
    ]


def _country(counterparty: int) -> str:
    return COUNTRIES[counterparty % len(COUNTRIES)]


def _bic(counterparty: int) -> str:
    """Return a business identifier code (ISO 9362): party, country, location, branch."""
    party = "".join(chr(65 + counterparty // 26**power % 26) for power in (3, 2, 1, 0))
    return f"{party}{_country(counterparty)}FFXXX"
