"""The price list at its edge: asked once, briefly, and never missed."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from local.pricing.models import product
from transient_mwaa.aws import price_list
from transient_mwaa.aws.price_list import PriceList
from transient_mwaa.domain import prices

pytestmark = pytest.mark.functions
SMALL = json.dumps(product("Environment", "Small", "0.5100000000"))


@pytest.fixture(autouse=True)
def account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")


def asked() -> dict[str, Any]:
    by = {"regionCode": "eu-west-1", "type": "Environment"}
    filters = [{"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in by.items()]
    return {"ServiceCode": "AmazonMWAA", "Filters": filters, "MaxResults": 100}


def test_it_asks_for_the_environments_of_its_own_region() -> None:
    pricing = boto3.client("pricing", region_name="us-east-1")
    with Stubber(pricing) as stubber:
        stubber.add_response("get_products", {"FormatVersion": "aws_v1", "PriceList": [SMALL]}, asked())
        price = PriceList("eu-west-1", pricing).price("mw1.small")
        stubber.assert_no_pending_responses()
    assert (price.usd_per_hour, price.source) == (0.51, "AWS price list for eu-west-1, base environment only")


@pytest.mark.parametrize("products", [[], ["no JSON"], ["{}"], ["[]"], ['{"product": null}'], ["null"]])
def test_what_is_no_price_list_leaves_the_recorded_price(products: list[str]) -> None:
    pricing = boto3.client("pricing", region_name="us-east-1")
    with Stubber(pricing) as stubber:
        stubber.add_response("get_products", {"PriceList": products})
        assert PriceList("eu-west-1", pricing).price("mw1.small") == prices.recorded("mw1.small")


@pytest.mark.parametrize("code", ["AccessDeniedException", "ThrottlingException", "InternalErrorException"])
def test_a_list_that_refuses_leaves_the_recorded_price(code: str) -> None:
    pricing = boto3.client("pricing", region_name="us-east-1")
    with Stubber(pricing) as stubber:
        stubber.add_client_error("get_products", code, http_status_code=400)
        assert PriceList("eu-west-1", pricing).price("mw1.small") == prices.recorded("mw1.small")


@pytest.mark.parametrize(
    ("region", "endpoint"),
    [("us-west-2", "us-east-1"), ("eu-west-1", "eu-central-1"), ("ap-northeast-1", "ap-south-1"),
     ("ca-central-1", "us-east-1")],
)  # fmt: skip
def test_the_nearest_of_the_three_regions_answers(monkeypatch: pytest.MonkeyPatch, region: str, endpoint: str) -> None:
    monkeypatch.setenv("AWS_REGION", region)
    own = PriceList.from_env()
    assert own._pricing.meta.region_name == endpoint
    assert own._pricing.meta.endpoint_url == f"https://api.pricing.{endpoint}.amazonaws.com"


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A price list that fails; what it was asked."""
    seen: list[str] = []

    class Fails(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.append(self.headers["X-Amz-Target"])
            self.send_response(503)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Fails)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL_PRICING", f"http://127.0.0.1:{server.server_port}")
    yield seen
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_list_that_fails_is_asked_once(failing: list[str]) -> None:
    assert PriceList.from_env().price("mw1.small") == prices.recorded("mw1.small")
    assert failing == ["AWSPriceListService.GetProducts"]


def test_nobody_waits_for_a_list_that_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    assert price_list._ONCE_AND_BRIEFLY.connect_timeout + price_list._ONCE_AND_BRIEFLY.read_timeout <= 5
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes the connection, and never answers
        monkeypatch.setenv("AWS_ENDPOINT_URL_PRICING", f"http://127.0.0.1:{silent.getsockname()[1]}")
        began = time.monotonic()
        assert PriceList.from_env().price("mw1.small") == prices.recorded("mw1.small")
        assert time.monotonic() - began < 10
