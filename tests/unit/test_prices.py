"""Prices: as GetProducts spells them, and the table that was written down."""

import json
from typing import Any

import pytest

from local.pricing.models import product
from transient_mwaa.domain import prices

pytestmark = pytest.mark.unit


def listed(*products: dict[str, Any], of: str = "mw1.small") -> prices.Price | None:
    return prices.listed(map(json.dumps, products), of, "us-east-1")


def test_the_listed_price_is_the_one_of_the_class() -> None:
    products = [product(kind, size, usd) for kind, size, usd in (
        ("Worker", "Small", "0.055"), ("Environment", "Small", "0.51"), ("Environment", "Large", "1.01"),
    )]  # fmt: skip
    assert listed(*products) == prices.Price(0.51, "AWS price list for us-east-1, base environment only", "2026-10-30")
    assert listed(*products, of="mw1.large").usd_per_hour == 1.01
    assert listed(*products, of="mw1.medium") is None
    assert listed(*products, of="") is None


def test_case_does_not_count_where_the_spelling_is_not_known() -> None:
    assert listed(product("Environment", "XLarge", "1.9"), of="mw1.xlarge").usd_per_hour == 1.9


def test_two_different_prices_are_none() -> None:
    small = product("Environment", "Small", "0.51")
    assert listed(small, small).usd_per_hour == 0.51
    assert listed(small, product("Environment", "Small", "0.52")) is None


@pytest.mark.parametrize("usd", ["0.0000000000", "-1", "nan", "inf"])
def test_what_is_no_price_is_none(usd: str) -> None:
    assert listed(product("Environment", "Small", usd)) is None


def test_a_price_by_another_unit_is_none() -> None:
    small = product("Environment", "Small", "0.51")
    for term in small["terms"]["OnDemand"].values():
        for dimension in term["priceDimensions"].values():
            dimension["unit"] = "GB-Mo"
    assert listed(small) is None


def test_the_recorded_table_says_that_it_is_one_and_of_when() -> None:
    own = prices.recorded("mw1.small")
    assert own.usd_per_hour == 0.49
    assert own.source.startswith("recorded table for us-east-1")
    assert own.as_of == prices.RECORDED_AS_OF
    assert prices.recorded("mw2.giant").usd_per_hour is None
    assert set(prices.USD_PER_HOUR) == {f"mw1.{size}" for size in ("micro", "small", "medium", "large")}
