"""What an hour of an environment costs at list price: by AWS's price list, else by a table that was written down."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

RECORDED_AS_OF = "2026-11-22"
RECORDED_SOURCE = (
    "recorded table for us-east-1, base environment only; mw1.micro as third parties quote it. "
    "Check https://aws.amazon.com/managed-workflows-for-apache-airflow/pricing/"
)
USD_PER_HOUR = {
    "mw1.micro": 0.29,
    "mw1.small": 0.49,
    "mw1.medium": 0.74,
    "mw1.large": 0.99,
}
"""List price of one environment while it is up, without additional workers, schedulers, web servers and storage."""


@dataclass(frozen=True)
class Price:
    """USD for an hour of the base environment, None when nobody knows; where that is from, and as of which date."""

    usd_per_hour: float | None
    source: str
    as_of: str


def recorded(environment_class: str) -> Price:
    """The price of the recorded table."""
    return Price(USD_PER_HOUR.get(environment_class), RECORDED_SOURCE, RECORDED_AS_OF)


def listed(products: Iterable[str], environment_class: str, region: str) -> Price | None:
    """The price of a class among products as GetProducts answers them, each a JSON text.

    That an environment has `type` Environment and `size` Small, Medium or Large is seen in published lists; how the
    list spells other sizes is not, so that case does not count. None when there is not exactly one positive price by
    the hour. Raises ValueError, LookupError, TypeError or AttributeError for what does not look like a price list.
    """
    size = environment_class.partition(".")[2].casefold()
    found = set()
    for document in map(json.loads, products):
        attributes = document["product"]["attributes"]
        if attributes.get("type") == "Environment" and attributes.get("size", "").casefold() == size:
            found |= {(usd, document["publicationDate"][:10]) for usd in _by_the_hour(document)}
    if len({usd for usd, _ in found}) != 1:
        return None
    usd, as_of = max(found, key=lambda each: each[1])
    return Price(usd, f"AWS price list for {region}, base environment only", as_of)


def _by_the_hour(document: dict[str, Any]) -> set[float]:
    prices = {
        float(dimension["pricePerUnit"]["USD"])
        for term in document["terms"]["OnDemand"].values()
        for dimension in term["priceDimensions"].values()
        if dimension["unit"] == "Hrs"
    }
    return {usd for usd in prices if 0 < usd < float("inf")}
