"""The data bucket: small JSON documents, read back by version."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

from botocore.exceptions import ClientError

from transient_mwaa.aws import passing

_OVERTAKEN = frozenset({"PreconditionFailed", "ConditionalRequestConflict"})
_MISSING = frozenset({"NoSuchKey", "NoSuchVersion", "NotFound", "404", "MethodNotAllowed"})
"""The last one is what S3 says of a delete marker."""
_CHUNK_BYTES = 8 * 1024 * 1024


class ObjectMissing(LookupError):
    """The bucket has no such key, or no such version of it."""


@dataclass(frozen=True)
class StoredObject:
    """One version of one object; `version_id` is empty in a bucket without versions."""

    key: str
    version_id: str
    body: bytes
    etag: str = ""

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.body).hexdigest()

    def json(self) -> Any:
        """The body as JSON; raises ValueError when it is none."""
        return json.loads(self.body)


class Bucket:
    """One versioned bucket. Raises ObjectMissing and ServiceUnavailable; other failures are botocore's."""

    def __init__(self, name: str, s3: Any) -> None:
        self.name = name
        self._s3 = s3

    @classmethod
    def from_env(cls) -> Self:
        return cls(os.environ["DATA_BUCKET"], passing.client("s3"))

    def fetch(self, key: str, version_id: str | None = None) -> StoredObject:
        """The object and the version that was read; without `version_id` the newest."""
        answer = self._get(key, version_id)
        with passing.reading():
            return StoredObject(key, answer.get("VersionId", ""), answer["Body"].read(), answer["ETag"])

    def find(self, key: str) -> StoredObject | None:
        """Like `fetch`, for what may rightly be absent."""
        try:
            return self.fetch(key)
        except ObjectMissing:
            return None

    def read(self, key: str, version_id: str | None = None) -> bytes:
        return self.fetch(key, version_id).body

    def read_json(self, key: str, version_id: str | None = None) -> Any:
        return self.fetch(key, version_id).json()

    def chunks(self, key: str, version_id: str) -> Iterator[bytes]:
        """The bytes of one version, a few megabytes at a time."""
        body = self._get(key, version_id)["Body"]
        while True:
            with passing.reading():
                chunk: bytes = body.read(_CHUNK_BYTES)
            if not chunk:
                return
            yield chunk

    def write(self, key: str, body: bytes, content_type: str = "application/octet-stream") -> str:
        """Returns the version id."""
        return self._put(key, body, content_type)

    def replace_json(self, key: str, value: Any, read: StoredObject | None) -> bool:
        """Writes only if the object is still the one that was `read` (None: not there). Says whether it was."""
        body = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
        condition = {"IfNoneMatch": "*"} if read is None else {"IfMatch": read.etag}
        try:
            self._put(key, body, "application/json", **condition)
        except ClientError as error:
            if passing.code_of(error) not in _OVERTAKEN:
                raise
            there = self.find(key)  # a try whose answer was lost has written it already
            return there is not None and there.body == body
        return True

    def write_json(self, key: str, value: Any, if_none_match: bool = False) -> str:
        """Returns the version id. With `if_none_match` an object that is there already makes botocore's
        PreconditionFailed (412)."""
        body = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
        return self._put(key, body, "application/json", **({"IfNoneMatch": "*"} if if_none_match else {}))

    def copy(self, key: str, version_id: str, to_key: str) -> str:
        """Copies one version inside the bucket, on the server. Returns the copy's version id."""
        source = {"Bucket": self.name, "Key": key, "VersionId": version_id}
        with _naming_the_missing(self.name, key, version_id):
            answer = self._s3.copy_object(Bucket=self.name, Key=to_key, CopySource=source, TaggingDirective="REPLACE")
        return str(answer.get("VersionId", ""))

    def keys(self, prefix: str) -> Iterator[str]:
        """Every key with this prefix that has an object now."""
        for page in self._s3.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix):
            yield from (each["Key"] for each in page.get("Contents", ()))

    def folders(self, prefix: str) -> Iterator[str]:
        """What comes after the prefix, up to the next slash, of all keys that have an object now; each once."""
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix, Delimiter="/")
        for page in pages:
            yield from (each["Prefix"][len(prefix) : -1] for each in page.get("CommonPrefixes", ()))

    def tag(self, key: str, name: str, value: str) -> None:
        """Gives the newest version of an object this one tag."""
        tags = {"TagSet": [{"Key": name, "Value": value}]}
        with _naming_the_missing(self.name, key, None):
            self._s3.put_object_tagging(Bucket=self.name, Key=key, Tagging=tags)

    def exists(self, key: str) -> bool:
        return self.size(key) is not None

    def size(self, key: str) -> int | None:
        """Bytes of the newest version, or None when there is none."""
        try:
            with _naming_the_missing(self.name, key, None):
                return int(self._s3.head_object(Bucket=self.name, Key=key)["ContentLength"])
        except ObjectMissing:
            return None

    def _get(self, key: str, version_id: str | None) -> dict[str, Any]:
        version = {} if version_id is None else {"VersionId": version_id}
        with _naming_the_missing(self.name, key, version_id):
            answer: dict[str, Any] = self._s3.get_object(Bucket=self.name, Key=key, **version)
        return answer

    def _put(self, key: str, body: bytes, content_type: str, **condition: str) -> str:
        # S3 compares the bytes it received with this checksum and refuses what was torn on the way.
        answer = self._s3.put_object(
            Bucket=self.name, Key=key, Body=body, ContentType=content_type, ChecksumAlgorithm="SHA256", **condition
        )
        return str(answer.get("VersionId", ""))


@contextmanager
def _naming_the_missing(bucket: str, key: str, version_id: str | None) -> Iterator[None]:
    """Turns S3's several ways to say "not there" into ObjectMissing."""
    try:
        yield
    except ClientError as error:
        # A version id that S3 cannot even parse names nothing either.
        code, message = passing.code_of(error), error.response["Error"].get("Message", "")
        if code in _MISSING or (code == "InvalidArgument" and "version" in message.lower()):
            version = f" version {version_id}" if version_id else ""
            raise ObjectMissing(f"s3://{bucket}/{key}{version} does not exist.") from error
        raise
