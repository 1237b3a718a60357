"""What AWS asks for, in one place.

List prices of us-east-1 in USD, without free tiers and discounts. They were written down by hand on RECORDED and no
program looks them up: before you rely on one, compare it with the page beside it.
"""

from __future__ import annotations

from typing import NamedTuple

RECORDED = "2026-11-23"


class Price(NamedTuple):
    usd: float
    per: float
    """So many of the unit cost `usd`."""
    unit: str
    source: str

    @property
    def each(self) -> float:
        """USD of one."""
        return self.usd / self.per


_AWS = "aws.amazon.com"
PRICES = {
    "transitions": Price(0.025, 1_000, "state transitions (Standard)", f"{_AWS}/step-functions/pricing"),
    "express_requests": Price(1.00, 1_000_000, "express workflow requests", f"{_AWS}/step-functions/pricing"),
    "express_gb_seconds": Price(0.00001667, 1, "GB-seconds of express workflows", f"{_AWS}/step-functions/pricing"),
    "lambda_gb_seconds": Price(0.0000133334, 1, "GB-seconds of Lambda (arm64)", f"{_AWS}/lambda/pricing"),
    "lambda_requests": Price(0.20, 1_000_000, "Lambda requests", f"{_AWS}/lambda/pricing"),
    "s3_writes": Price(0.005, 1_000, "S3 PUT, COPY and LIST requests", f"{_AWS}/s3/pricing"),
    "s3_reads": Price(0.0004, 1_000, "S3 GET and HEAD requests", f"{_AWS}/s3/pricing"),
    "dynamodb_writes": Price(0.625, 1_000_000, "DynamoDB write request units", f"{_AWS}/dynamodb/pricing/on-demand"),
    "dynamodb_reads": Price(0.125, 1_000_000, "DynamoDB read request units", f"{_AWS}/dynamodb/pricing/on-demand"),
    "kms_requests": Price(0.03, 10_000, "KMS requests", f"{_AWS}/kms/pricing"),
    "log_gb": Price(0.50, 1, "GB of logs taken in", f"{_AWS}/cloudwatch/pricing"),
    "traces": Price(5.00, 1_000_000, "X-Ray traces recorded", f"{_AWS}/xray/pricing"),
    "notifications": Price(2.00, 100_000, "notifications by e-mail", f"{_AWS}/sns/pricing"),
    "scheduler": Price(1.00, 1_000_000, "EventBridge Scheduler invocations", f"{_AWS}/eventbridge/pricing"),
}
"""What a night and a day use."""

MONTHLY = {
    "key": Price(1.00, 1, "KMS key (one more dollar after each of its first two rotations)", f"{_AWS}/kms/pricing"),
    "metric": Price(0.30, 1, "custom metric", f"{_AWS}/cloudwatch/pricing"),
    "alarm": Price(0.10, 1, "metric that an alarm watches", f"{_AWS}/cloudwatch/pricing"),
    "dashboard": Price(3.00, 1, "dashboard (the first three of an account are free)", f"{_AWS}/cloudwatch/pricing"),
    "s3_gb": Price(0.023, 1, "GB in S3 Standard", f"{_AWS}/s3/pricing"),
}
"""What is there costs by the month."""

HOURLY = {
    "nat": Price(0.045, 1, "hours of a NAT gateway, beside what it carries", f"{_AWS}/vpc/pricing"),
}
"""What the sample's network costs, asleep or not. MWAA's own prices are in transient_mwaa.domain.prices."""
