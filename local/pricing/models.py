"""Products as GetProducts answers them, shaped as in the Price List API's reference.

Attributes and prices are those of us-east-1 that Infracost's tests of `aws_mwaa_environment` show. Other regions are
empty, as for a region without MWAA.
"""

from __future__ import annotations

import json
from typing import Any

from moto.core.base_backend import BackendDict, BaseBackend

HOURLY_USD = {
    ("Environment", "Small"): "0.4900000000",
    ("Environment", "Medium"): "0.7400000000",
    ("Environment", "Large"): "0.9900000000",
    ("Worker", "Small"): "0.0550000000",
    ("Scheduler", "Small"): "0.0550000000",
    ("Scheduler", "Medium"): "0.1100000000",
}


def product(kind: str, size: str, usd: str) -> dict[str, Any]:
    """One product with its one price."""
    sku = f"{kind}{size}".upper()
    return {
        "product": {
            "attributes": {
                "location": "US East (N. Virginia)", "locationType": "AWS Region", "operation": "",
                "regionCode": "us-east-1", "servicecode": "AmazonMWAA",
                "servicename": "Amazon Managed Workflows for Apache Airflow", "size": size, "type": kind,
                "usagetype": f"USE1-Airflow-{size}{kind}",
            },
            "sku": sku,
        },
        "publicationDate": "2026-10-30T12:00:00Z",
        "serviceCode": "AmazonMWAA",
        "terms": {
            "OnDemand": {
                f"{sku}.JRTCKXETXF": {
                    "effectiveDate": "2026-10-01T00:00:00Z",
                    "offerTermCode": "JRTCKXETXF",
                    "priceDimensions": {
                        f"{sku}.JRTCKXETXF.6YS6EN2CT7": {
                            "appliesTo": [], "beginRange": "0", "description": f"${usd} per hour", "endRange": "Inf",
                            "pricePerUnit": {"USD": usd}, "rateCode": f"{sku}.JRTCKXETXF.6YS6EN2CT7", "unit": "Hrs",
                        },
                    },
                    "sku": sku, "termAttributes": {},
                },
            },
        },
        "version": "20261030120000",
    }  # fmt: skip


class PricingBackend(BaseBackend):
    """Knows one service."""

    def get_products(self, service_code: str, filters: list[dict[str, str]]) -> list[str]:
        """JSON texts of all products that agree with every filter."""
        wanted = {each["Field"]: each["Value"] for each in filters}
        products = [product(kind, size, usd) for (kind, size), usd in HOURLY_USD.items()]
        return [
            json.dumps(each)
            for each in products
            if each["serviceCode"] == service_code and wanted.items() <= each["product"]["attributes"].items()
        ]


pricing_backends = BackendDict(PricingBackend, "pricing", use_boto3_regions=False, additional_regions=["us-east-1"])
