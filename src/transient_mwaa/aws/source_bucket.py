"""The environment's own bucket, which holds its requirements, plugins and startup script."""

from dataclasses import dataclass
from typing import Any, Self

from botocore.exceptions import ClientError

from transient_mwaa.aws import passing

MISSING = frozenset({"NoSuchKey", "NoSuchVersion", "NoSuchBucket", "NotFound", "404"})


@dataclass(frozen=True)
class SourceFile:
    """One version of a file as it was read."""

    body: bytes
    version_id: str


class SourceBucket:
    """Reads pinned versions, and puts a lost file back to its path."""

    def __init__(self, s3: Any) -> None:
        self._s3 = s3

    @classmethod
    def from_env(cls) -> Self:
        return cls(passing.client("s3"))

    def read(self, bucket: str, path: str, version_id: str) -> SourceFile | None:
        """This version of the file, the newest when `version_id` is ""; None when it is not there."""
        try:
            answer = self._s3.get_object(Bucket=bucket, Key=path, **_version(version_id))
        except ClientError as error:
            if _is_missing(error):
                return None
            raise
        return SourceFile(answer["Body"].read(), str(answer.get("VersionId", "")))

    def exists(self, bucket: str, path: str, version_id: str) -> bool:
        """Whether this version is there, or any when `version_id` is ""."""
        try:
            self._s3.head_object(Bucket=bucket, Key=path, **_version(version_id))
        except ClientError as error:
            if _is_missing(error):
                return False
            raise
        return True

    def put_back(self, bucket: str, path: str, body: bytes) -> str:
        """Writes the file to its path again and returns the new version id."""
        return str(self._s3.put_object(Bucket=bucket, Key=path, Body=body).get("VersionId", ""))


def bucket_name(arn: str) -> str:
    """`arn:aws:s3:::name` -> `name`."""
    return arn.rpartition(":::")[2]


def _version(version_id: str) -> dict[str, str]:
    return {"VersionId": version_id} if version_id else {}


def _is_missing(error: ClientError) -> bool:
    # S3 answers 400 to a version id that it cannot even parse; HEAD has no body to say more.
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return passing.code_of(error) in MISSING or status in {400, 404, 405}
