"""Requests in, answers out."""

from __future__ import annotations

import json

from moto.core.responses import ActionResult, BaseResponse

from local.pricing.models import pricing_backends


class PricingResponse(BaseResponse):
    """One method per operation, named as moto looks them up."""

    def __init__(self) -> None:
        super().__init__(service_name="pricing")

    def get_products(self) -> ActionResult:
        asked = json.loads(self.body)
        backend = pricing_backends[self.current_account][self.region]
        products = backend.get_products(asked["ServiceCode"], asked.get("Filters", []))
        return ActionResult({"FormatVersion": "aws_v1", "PriceList": products})
