"""AWS's price list, asked briefly: nobody waits for a price, and nothing fails without one."""

import os
from typing import Any, Self

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from transient_mwaa.aws import passing
from transient_mwaa.domain import prices
from transient_mwaa.domain.errors import ServiceUnavailable

_ENDPOINTS = {"eu": "eu-central-1", "ap": "ap-south-1"}
"""Beginning of a region to the nearest region that answers; us-east-1 for all others."""
_ONCE_AND_BRIEFLY = Config(retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=3)


class PriceList:
    """The price list of one region."""

    def __init__(self, region: str, pricing: Any) -> None:
        self._region = region
        self._pricing = pricing

    @classmethod
    def from_env(cls) -> Self:
        region = os.environ["AWS_REGION"]
        endpoint = _ENDPOINTS.get(region.partition("-")[0], "us-east-1")
        return cls(region, passing.new_client("pricing", endpoint, _ONCE_AND_BRIEFLY))

    def price(self, environment_class: str) -> prices.Price:
        """The listed price; the recorded one when the list does not answer, or does not know the class."""
        try:
            answer = self._pricing.get_products(
                ServiceCode="AmazonMWAA",
                Filters=[
                    {"Type": "TERM_MATCH", "Field": "regionCode", "Value": self._region},
                    {"Type": "TERM_MATCH", "Field": "type", "Value": "Environment"},
                ],
                MaxResults=100,
            )
            listed = prices.listed(answer["PriceList"], environment_class, self._region)
        except (ServiceUnavailable, BotoCoreError, ClientError, ValueError, LookupError, TypeError, AttributeError):
            listed = None
        return listed or prices.recorded(environment_class)
