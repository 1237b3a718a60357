"""What Airflow keeps encrypted: decrypted on the worker, sealed under KMS at once, and back under a new Fernet key.

Nothing here is logged, and no plaintext leaves memory.
"""

# ruff: noqa: S608 - SQL is made of the catalogue's names, quoted; values pass through literal()

from __future__ import annotations

import json
from typing import Any

from aws_encryption_sdk import CommitmentPolicy, EncryptionSDKClient, StrictAwsKmsMasterKeyProvider

from airflow_metadata import airflow_compat
from airflow_metadata.database import Column, Session, Table, quote
from airflow_metadata.errors import ObjectChanged, SecretUnreadable
from airflow_metadata.sums import measure_of, microseconds

# Table -> its encrypted columns, each with the column that says whether it really is.
_ENCRYPTED = {
    "variable": {"val": "is_encrypted"},
    "connection": {"password": "is_encrypted", "extra": "is_extra_encrypted"},
}
_NAMES = {"variable": "key", "connection": "conn_id"}

Secrets = dict[str, list[dict[str, Any]]]

# Airflow's event log notes what a person sent, and hides a value only where the name of the variable or of the field
# sounds secret. All values are secret to us, so of these events only the name goes into an export.
MASKED_NOTE = "values of variables and connections are not exported"
MASKED = {
    ("log", "extra"): f"""CASE WHEN t.event ~* '(variable|connection)' AND t.extra IS NOT NULL
        THEN json_build_object('name', substring(t.extra FROM '"(?:key|conn_id|connection_id|name)": *"([^"]*)"'),
                               'masked', '{MASKED_NOTE}')::text
        ELSE t.extra END"""
}


def context(environment: str, export_id: str) -> dict[str, str]:
    """Encryption context: authenticated with the ciphertext, visible in CloudTrail."""
    return {"environment": environment, "export_id": export_id, "content": "secrets"}


def read(session: Session, tables: dict[str, Table], fernet: Any) -> Secrets:
    """All secrets in clear: whole rows of variable and connection, trigger kwargs, password hashes of users.

    Raises SecretUnreadable with the name of the row (never its value).
    """
    found: Secrets = {}
    for name, columns in _ENCRYPTED.items():
        rows = _rows(session, tables[name], tables[name].names)
        for row in rows:
            for column, flag in columns.items():
                if row[flag] and row[column]:
                    row[column] = _decrypt(fernet, row[column], f"{name} {row[_NAMES[name]]!r}")
        found[name] = rows
    found["trigger"] = _rows(session, tables["trigger"], ["id", "kwargs"]) if "trigger" in tables else []
    for row in found["trigger"]:
        if not row["kwargs"].startswith("{"):  # Airflow itself reads such rows as not encrypted
            row["kwargs"] = _decrypt(fernet, row["kwargs"], f"trigger {row['id']}")
    found["ab_user"] = _rows(session, tables["ab_user"], ["username", "password"]) if "ab_user" in tables else []
    return found


def _rows(session: Session, table: Table, names: list[str]) -> list[dict[str, Any]]:
    """Rows in forms that JSON has: times as PostgreSQL counts them, bytes in hexadecimal (see restore._arrow)."""
    columns = {column.name: column for column in table.columns}
    select = ", ".join(_as_json(columns[name], table.name) for name in names)
    found = session.rows(f"SELECT {select} FROM {quote(table.name)} ORDER BY 1")
    return [dict(zip(names, row, strict=True)) for row in found]


def _as_json(column: Column, table: str) -> str:
    value, measure = quote(column.name), measure_of(column, table)
    if measure == "timestamp":
        return microseconds(value)
    if column.type == "uuid":
        return f"replace({value}::text, '-', '')"
    if measure == "bytes":
        return f"encode({value}, 'hex')"
    return f"{value}::text" if measure == "text" else value


def _decrypt(fernet: Any, value: str, name: str) -> str:
    from cryptography.fernet import InvalidToken

    try:
        return str(fernet.decrypt(value.encode()).decode())
    except InvalidToken:
        raise SecretUnreadable(
            f"The {name} cannot be decrypted with this environment's Fernet key, and would be lost. "
            "Save it again or delete it; the environment stays up."
        ) from None


def encrypted_again(secrets: Secrets) -> Secrets:
    """The same rows under this environment's Fernet key. Without a key values stay in clear, as Airflow does it."""
    answer: Secrets = {"ab_user": secrets["ab_user"]}
    answer["variable"] = [row | airflow_compat.stored_variable(row["val"]) for row in secrets["variable"]]
    answer["connection"] = [
        row | airflow_compat.stored_connection(row["password"], row["extra"]) for row in secrets["connection"]
    ]
    # Trigger.encrypt_kwargs() would serialize the arguments anew, of classes that may be missing here.
    fernet = airflow_compat.fernet()
    answer["trigger"] = [
        {"id": row["id"], "kwargs": fernet.encrypt(row["kwargs"].encode()).decode()} for row in secrets["trigger"]
    ]
    return answer


def seal(secrets: Secrets, kms_key_arn: str, encryption_context: dict[str, str]) -> bytes:
    """Ciphertext of the AWS Encryption SDK over UTF-8 JSON."""
    sealed, _ = _client().encrypt(
        source=json.dumps(secrets, ensure_ascii=False).encode(),
        key_provider=StrictAwsKmsMasterKeyProvider(key_ids=[kms_key_arn]),
        encryption_context=encryption_context,
    )
    return bytes(sealed)


def unseal(sealed: bytes, kms_key_arn: str, encryption_context: dict[str, str]) -> Secrets:
    """Inverse of seal(). Raises ObjectChanged if the ciphertext was made for another environment or export."""
    plain, header = _client().decrypt(source=sealed, key_provider=StrictAwsKmsMasterKeyProvider(key_ids=[kms_key_arn]))
    if not encryption_context.items() <= header.encryption_context.items():
        raise ObjectChanged("secrets.enc belongs to another export. Restore another export.")
    return dict(json.loads(plain))


def _client() -> EncryptionSDKClient:
    return EncryptionSDKClient(commitment_policy=CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT)
