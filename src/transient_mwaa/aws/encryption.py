"""Secrets at rest: envelope encryption under one KMS key, bound to what the ciphertext is about."""

import os
from typing import Self

from aws_encryption_sdk import CommitmentPolicy, EncryptionSDKClient, StrictAwsKmsMasterKeyProvider
from aws_encryption_sdk.exceptions import AWSEncryptionSDKClientError
from cryptography.exceptions import InvalidSignature, InvalidTag

from transient_mwaa.aws import passing

_SIGNING_KEY = "aws-crypto-public-key"  # the library's own addition to every signed message's context
# Damaged bytes surface as whatever the library stumbled over first.
_DAMAGED = (
    AWSEncryptionSDKClientError,
    InvalidSignature,
    InvalidTag,
    ArithmeticError,
    LookupError,
    TypeError,
    ValueError,
)


class Undecryptable(ValueError):
    """The ciphertext cannot be opened with this key, or it is about something else. The message holds no content."""


class Encryption:
    """Encrypts and decrypts bytes with aws-encryption-sdk (StrictAwsKmsMasterKeyProvider, key commitment required)."""

    def __init__(self, key_arn: str) -> None:
        # The library turns every refusal by KMS into "cannot decrypt"; our session names those that pass before it can.
        self._keys = StrictAwsKmsMasterKeyProvider(key_ids=[key_arn], botocore_session=passing.session())
        self._sdk = EncryptionSDKClient(
            commitment_policy=CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT, max_encrypted_data_keys=1
        )

    @classmethod
    def from_env(cls) -> Self:
        return cls(os.environ["KEY_ARN"])

    def encrypt(self, plaintext: bytes, context: dict[str, str]) -> bytes:
        ciphertext, _ = self._sdk.encrypt(source=plaintext, key_provider=self._keys, encryption_context=context)
        return bytes(ciphertext)

    def decrypt(self, ciphertext: bytes, expected_context: dict[str, str]) -> bytes:
        """Raises Undecryptable for the wrong key, damaged bytes or another context; ServiceUnavailable when KMS is
        failing for the moment."""
        try:
            plaintext, header = self._sdk.decrypt(source=ciphertext, key_provider=self._keys)
        except _DAMAGED as error:
            raise Undecryptable(f"The ciphertext cannot be opened ({type(error).__name__}).") from None
        found = {name: value for name, value in header.encryption_context.items() if name != _SIGNING_KEY}
        if found != expected_context:
            raise Undecryptable("The ciphertext was made for another purpose (its encryption context differs).")
        return bytes(plaintext)
