"""S3: streams out with their SHA-256 on the way, objects back by version id."""

from __future__ import annotations

import hashlib
import io
import json
import logging
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from airflow_metadata.errors import ExportExists, ObjectChanged

log = logging.getLogger(__name__)

_PART_BYTES = 8 * 1024 * 1024  # of a multipart upload; S3 allows 10,000 parts: 80 GB


class Upload(io.RawIOBase):
    """A file that goes to S3 as it is written: one part on its way and one that fills up, never a file on disk.

    publish() makes it visible (one request if it is small); abort() leaves nothing behind.
    """

    def __init__(self, client: Any, bucket: str, key: str) -> None:
        super().__init__()
        self._client, self._target = client, {"Bucket": bucket, "Key": key}
        self._buffer, self._sha256, self._upload_id, self._parts = bytearray(), hashlib.sha256(), "", 0
        self._tags: list[dict[str, Any]] = []
        self._sender: ThreadPoolExecutor | None = None
        self._sending: Future[dict[str, Any]] | None = None
        self.key, self.bytes, self.version_id = key, 0, ""

    def writable(self) -> bool:
        """Always: this file is for writing."""
        return True

    def tell(self) -> int:
        """Bytes written so far."""
        return self.bytes

    @property
    def sha256(self) -> str:
        """Hex digest of what was written so far."""
        return self._sha256.hexdigest()

    def write(self, data: Any) -> int:
        """Take bytes; sends a part whenever one is full."""
        view = memoryview(data).cast("B")
        self._sha256.update(view)
        self._buffer += view
        self.bytes += len(view)
        while len(self._buffer) >= _PART_BYTES:
            self._send(bytes(self._buffer[:_PART_BYTES]))
            del self._buffer[:_PART_BYTES]
        return len(view)

    def _send(self, part: bytes) -> None:
        """Send one part while the next one fills up. Raises what the part before it ran into."""
        if not self._upload_id:
            self._upload_id = self._client.create_multipart_upload(**self._target)["UploadId"]
            self._sender = ThreadPoolExecutor(1, thread_name_prefix="upload")
        self._await_part()
        self._parts += 1
        assert self._sender  # noqa: S101
        self._sending = self._sender.submit(self._send_now, self._parts, part)

    def _send_now(self, number: int, part: bytes) -> dict[str, Any]:
        sent = self._client.upload_part(**self._target, UploadId=self._upload_id, PartNumber=number, Body=part)
        return {"ETag": sent["ETag"], "PartNumber": number}

    def _await_part(self) -> None:
        if self._sending:
            self._tags.append(self._sending.result())
            self._sending = None

    def publish(self) -> None:
        """Make the object visible and note its version id. Raises ObjectChanged if the bucket keeps no versions."""
        if self._upload_id:
            if self._buffer:
                self._send(bytes(self._buffer))
            self._await_part()
            done = self._client.complete_multipart_upload(
                **self._target, UploadId=self._upload_id, MultipartUpload={"Parts": self._tags}
            )
            self._end()
        else:
            done = self._client.put_object(**self._target, Body=bytes(self._buffer))
        self._buffer.clear()
        self.version_id = _version_of(done, self._target)

    def abort(self) -> None:
        """Forget what was sent, without ado: what went wrong before is the error to be seen.

        A bucket rule deletes unfinished uploads that even this leaves behind.
        """
        self._buffer.clear()
        if self._end():
            try:
                self._client.abort_multipart_upload(**self._target, UploadId=self._upload_id)
            except (BotoCoreError, ClientError) as error:
                log.warning("The unfinished upload of %s stays: %s", self.key, error)

    def _end(self) -> bool:
        """No part is on its way any more; answers whether an upload was under way."""
        sender, self._sender = self._sender, None
        if sender:
            sender.shutdown(wait=True, cancel_futures=True)
        return sender is not None


def _version_of(answer: dict[str, Any], target: dict[str, str]) -> str:
    version = answer.get("VersionId")
    if not version:
        raise ObjectChanged(
            f"Bucket {target['Bucket']} keeps no versions, so that {target['Key']} could change later. "
            "Turn on versioning for the bucket."
        )
    return str(version)


def _only_if_none(params: dict[str, Any], **_: Any) -> None:
    params["headers"]["If-None-Match"] = "*"


class Store:
    """The data bucket, as the environment's execution role may use it."""

    def __init__(self, bucket: str) -> None:
        self.bucket = bucket
        self._client = boto3.client("s3")

    def upload(self, key: str) -> Upload:
        """Begin a stream."""
        return Upload(self._client, self.bucket, key)

    def exists(self, key: str) -> bool:
        """Whether an object of that key is there."""
        try:
            self._client.head_object(Bucket=self.bucket, Key=key)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                return False
            raise
        return True

    def _open(self, key: str, version_id: str | None = None) -> Any:
        """The body of an object, or None if it is missing."""
        version = {"VersionId": version_id} if version_id else {}
        try:
            return self._client.get_object(Bucket=self.bucket, Key=key, **version)["Body"]
        except ClientError as error:
            if error.response["Error"]["Code"] in ("NoSuchKey", "NoSuchVersion", "404"):
                return None
            raise

    def read(self, key: str, version_id: str | None = None) -> bytes | None:
        """All bytes of an object, or None if it is missing."""
        body = self._open(key, version_id)
        return None if body is None else bytes(body.read())

    def read_json(self, key: str) -> dict[str, Any] | None:
        """A JSON object, or None if it is missing."""
        data = self.read(key)
        return None if data is None else dict(json.loads(data))

    def check_promised(self, entry: dict[str, Any]) -> None:
        """An object is exactly what the manifest promised: there, in that version, of that size and SHA-256.

        Read as a stream. Raises ObjectChanged.
        """
        body = self._open(entry["key"], entry["version_id"])
        if body is None:
            raise ObjectChanged(f"{entry['key']} (version {entry['version_id']}) is gone. Restore another export.")
        digest, size = hashlib.sha256(), 0
        for chunk in body.iter_chunks(1024 * 1024):
            digest.update(chunk)
            size += len(chunk)
        if size != entry["bytes"] or digest.hexdigest() != entry["sha256"]:
            raise ObjectChanged(f"{entry['key']} is not what the manifest promised. Restore another export.")

    def put(self, key: str, data: bytes) -> dict[str, Any]:
        """Write an object; answers {"key", "version_id", "bytes", "sha256"}."""
        answer = self._client.put_object(Bucket=self.bucket, Key=key, Body=data)
        version = _version_of(answer, {"Bucket": self.bucket, "Key": key})
        return {"key": key, "version_id": version, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    def put_once(self, key: str, data: bytes) -> None:
        """Write an object that must not exist yet. Raises ExportExists."""
        # By header: the botocore of older MWAA images does not know the parameter IfNoneMatch.
        client = boto3.client("s3")
        client.meta.events.register("before-call.s3.PutObject", _only_if_none)
        try:
            client.put_object(Bucket=self.bucket, Key=key, Body=data)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] in (409, 412):
                raise ExportExists(f"{key} exists already. Exports are never overwritten: use a new run id.") from error
            raise
