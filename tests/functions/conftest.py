from collections.abc import Iterator
from datetime import UTC, datetime
from types import ModuleType

import pytest
from moto import mock_aws

from local import moto_seams
from tests.functions.night import Night
from transient_mwaa.aws import passing

WARM: dict[str, ModuleType] = {}
"""Functions stay loaded between tests, as Lambda keeps them: making clients takes far longer than using them."""


@pytest.fixture
def night(monkeypatch: pytest.MonkeyPatch) -> Iterator[Night]:
    """An export that has just succeeded, in an empty account."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("DATA_BUCKET", "data")
    monkeypatch.setenv("RECORDS_TABLE", "records")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    with moto_seams.Replacer() as replace, mock_aws():
        moto_seams.register_mwaa_and_pricing(replace)
        key_arn = passing.client("kms").create_key()["KeyMetadata"]["Arn"]
        monkeypatch.setenv("KEY_ARN", key_arn)
        yield Night(datetime.now(UTC), key_arn, WARM)
