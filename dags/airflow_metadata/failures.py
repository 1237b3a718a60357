"""What the database and AWS fail with, under our names: nobody should have to know our drivers to read a task's log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import adbc_driver_manager
from aws_encryption_sdk.exceptions import AWSEncryptionSDKClientError
from botocore.exceptions import BotoCoreError, ClientError

from airflow_metadata.errors import AwsRequestFailed, DatabaseFailed

_AGAIN = "Nothing of this attempt counts: try again, an export under a new run id."


@contextmanager
def named() -> Iterator[None]:
    """Raises DatabaseFailed and AwsRequestFailed for what the drivers raise."""
    try:
        yield
    except adbc_driver_manager.Error as error:
        raise database_failed(error).with_traceback(error.__traceback__) from None
    except (AWSEncryptionSDKClientError, BotoCoreError, ClientError) as error:
        said = ": ".join(str(each) for each in (error, error.__cause__ or error.__context__) if each)
        raise AwsRequestFailed(f"AWS refused or failed a request for good: {said}. {_AGAIN}") from error


def database_failed(error: adbc_driver_manager.Error | OSError) -> DatabaseFailed:
    """The driver's message may show rows; the parts that are passed on do not."""
    told = dict(getattr(error, "details", ()))
    parts = [told.get(key) for key in (b"PG_DIAG_MESSAGE_PRIMARY", b"PG_DIAG_TABLE_NAME", b"PG_DIAG_COLUMN_NAME")]
    said = ", ".join(part.decode(errors="replace") for part in parts if part) or str(error).partition("\n")[0]
    state = getattr(error, "sqlstate", None)
    return DatabaseFailed(
        f"The database refused or broke off: {said}{f' (SQLSTATE {state})' if state else ''}. {_AGAIN}"
    )
