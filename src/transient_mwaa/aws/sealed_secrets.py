"""The secrets of one export, apart from its other papers: only what opens them carries the encryption library."""

import hashlib
from typing import Self

from transient_mwaa.aws.bucket import Bucket, ObjectMissing
from transient_mwaa.aws.encryption import Encryption, Undecryptable
from transient_mwaa.domain.evidence import SecretsEvidence, secret_rows
from transient_mwaa.domain.manifest import Manifest


class SealedSecrets:
    """secrets.enc: opened in memory, counted, forgotten."""

    def __init__(self, bucket: Bucket, encryption: Encryption) -> None:
        self._bucket = bucket
        self._encryption = encryption

    @classmethod
    def from_env(cls) -> Self:
        return cls(Bucket.from_env(), Encryption.from_env())

    def examine(self, manifest: Manifest) -> SecretsEvidence:
        """What lies there under the promised version. What cannot be opened becomes its `problem`."""
        promised = manifest.secrets
        if promised is None:
            return SecretsEvidence(0, "", None, "none were promised")
        try:
            sealed = self._bucket.read(promised.key, promised.version_id)
        except ObjectMissing:
            return SecretsEvidence(0, "", None, "this version of the object does not exist")
        size, sha256 = len(sealed), hashlib.sha256(sealed).hexdigest()
        context = {"environment": manifest.environment, "export_id": manifest.export_id, "content": "secrets"}
        try:
            rows = secret_rows(self._encryption.decrypt(sealed, context))
        except (Undecryptable, ValueError) as error:
            return SecretsEvidence(size, sha256, None, str(error))
        return SecretsEvidence(size, sha256, rows)
