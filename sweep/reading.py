"""What happens most, answered from moto's memory: spelling it out as HTTP was half of a scenario's time."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

from botocore.awsrequest import AWSResponse
from botocore.endpoint import Endpoint
from botocore.response import StreamingBody
from moto.backends import get_backend
from moto.core import DEFAULT_ACCOUNT_ID
from moto.core.exceptions import ServiceException
from moto.s3.exceptions import S3ClientError
from moto.s3.models import FakeKey

from local.moto_seams import Replacer
from local.mwaa.models import MwaaError, RestApiFailed, mwaa_backends

METADATA = {"HTTPStatusCode": 200, "HTTPHeaders": {}, "RetryAttempts": 0, "RequestId": "memory"}


def answer_from_memory(replace: Replacer) -> None:
    """S3's GetObject and DynamoDB's GetItem of what is there, asked for as a whole, S3's PutObject without a condition,
    MWAA's GetEnvironment and InvokeRestApi. All else goes the long way."""

    def send_request(self: Endpoint, request_dict: dict[str, Any], operation_model: Any) -> Any:
        found = None
        if operation_model.name == "GetObject":
            found = _object(request_dict["context"]["s3_redirect"]["params"])
        elif operation_model.name == "PutObject":
            found = _written(request_dict["context"]["s3_redirect"]["params"])
        elif operation_model.name == "GetEnvironment":
            found = _environment(self.host, request_dict)
        elif operation_model.name == "GetItem":
            found = _item(self.host, json.loads(request_dict["body"]))
        elif operation_model.name == "InvokeRestApi":
            found = _rest(self.host, request_dict)
        if found is None:
            return original(self, request_dict, operation_model)
        status = found.pop("HTTPStatusCode", 200)
        parsed = {**found, "ResponseMetadata": {**METADATA, "HTTPStatusCode": status}}
        return AWSResponse(request_dict["url"], status, {}, io.BytesIO()), parsed

    original = replace.attribute(Endpoint, "_send_request", send_request)


def _object(params: dict[str, Any]) -> dict[str, Any] | None:
    """Without checksums, encryption and the object's own metadata, which nobody here reads."""
    if not params.keys() <= {"Bucket", "Key", "VersionId", "ChecksumMode"}:
        return None
    try:
        key = get_backend("s3")[DEFAULT_ACCOUNT_ID]["aws"].get_object(
            params["Bucket"], params["Key"], version_id=params.get("VersionId")
        )
    except S3ClientError:
        return None
    if not isinstance(key, FakeKey):  # a delete marker, or nothing
        return None
    body = bytes(key.value)
    return {
        "Body": StreamingBody(io.BytesIO(body), len(body)),
        "ContentLength": len(body),
        "ETag": key.etag,
        "LastModified": key.last_modified.replace(microsecond=0, tzinfo=UTC),
        "Metadata": {},
        **({"VersionId": key.version_id} if key.version_id != "null" else {}),
    }


def _written(params: dict[str, Any]) -> dict[str, Any] | None:
    """What only HeadObject would show, the content's type and checksum, is not kept. The bucket's policy has something
    to say about manifests."""
    usual = {"Bucket", "Key", "Body", "ContentType", "ChecksumAlgorithm"}
    if params["Key"].endswith("/manifest.json") or not params.keys() <= usual:
        return None
    body = params["Body"]
    if not isinstance(body, io.BytesIO):  # as which botocore passes bytes on
        return None
    try:
        key = get_backend("s3")[DEFAULT_ACCOUNT_ID]["aws"].put_object(params["Bucket"], params["Key"], body.getvalue())
    except S3ClientError:
        return None
    return {"ETag": key.etag, **({"VersionId": key.version_id} if key.version_id != "null" else {})}


def _environment(host: str, request_dict: dict[str, Any]) -> dict[str, Any] | None:
    """Twice: as botocore reads it, and as it came, which describe_environment wants to have, too."""
    backend, name = _environments(host), unquote(request_dict["url_path"].rpartition("/")[2])
    try:
        found = backend.get_environment(name)
    except MwaaError as error:
        return _refusal(error) if error.code == "ResourceNotFoundException" else None
    return {"Environment": _to_the_second(found), "RawEnvironment": _to_the_second(found)}


def _to_the_second(value: Any) -> Any:
    """As on the wire."""
    if isinstance(value, dict):
        return {name: _to_the_second(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_to_the_second(each) for each in value]
    return value.replace(microsecond=0) if isinstance(value, datetime) else value


def _environments(host: str) -> Any:
    return mwaa_backends[DEFAULT_ACCOUNT_ID][host.split(".")[-3]]


def _refusal(error: MwaaError) -> dict[str, Any]:
    return {"Error": {"Code": error.code, "Message": error.message}, "HTTPStatusCode": 400}


def _item(host: str, params: dict[str, Any]) -> dict[str, Any] | None:
    if not params.keys() <= {"TableName", "Key", "ConsistentRead"}:
        return None
    region = host.split(".")[1]
    try:
        item = get_backend("dynamodb")[DEFAULT_ACCOUNT_ID][region].get_item(params["TableName"], params["Key"])
    except ServiceException:
        return None
    return {"Item": json.loads(json.dumps(item.to_json()["Attributes"]))} if item else {}


def _rest(host: str, request_dict: dict[str, Any]) -> dict[str, Any] | None:
    """None for what botocore would try again."""
    backend, name = _environments(host), unquote(request_dict["url_path"].rpartition("/")[2])
    try:
        return backend.invoke_rest_api({"Name": name, **json.loads(request_dict["body"])})
    except MwaaError as error:
        failed = _refusal(error)
        if not isinstance(error, RestApiFailed):
            return failed
        if error.RestApiStatusCode >= 500:
            return None
        return {**failed, "RestApiStatusCode": error.RestApiStatusCode, "RestApiResponse": error.RestApiResponse}
