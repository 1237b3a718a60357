"""The sums of the manifest's contract, worked out in plain Python from plain values: slow, and by another way."""

import hashlib
import math
import struct
from datetime import UTC, datetime, timedelta
from typing import Any

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def by_hand(measure: str, values: list[Any]) -> dict[str, Any]:
    present = [value for value in values if value is not None]
    if not present:
        return {"measure": measure, "count": 0, "min": None, "max": None, "sum": None}
    low, high, total = _BY_MEASURE[measure](present)
    return {"measure": measure, "count": len(present), "min": low, "max": high, "sum": str(total)}


def _integer(values: list[int]) -> tuple[str, str, int]:
    return str(min(values)), str(max(values)), sum(values)


def _boolean(values: list[bool]) -> tuple[None, None, int]:
    return None, None, values.count(True)


def _float(values: list[float]) -> tuple[str, str, int]:
    ordered = sorted(values, key=lambda value: (math.isnan(value), value if not math.isnan(value) else 0.0))
    written = ["NaN" if math.isnan(value) else repr(value + 0.0) for value in ordered]
    return written[0], written[-1], sum(struct.unpack("<q", struct.pack("<d", value))[0] for value in values)


def _timestamp(values: list[datetime]) -> tuple[str, str, int]:
    aware = [value if value.tzinfo else value.replace(tzinfo=UTC) for value in values]
    return _integer([(value - EPOCH) // timedelta(microseconds=1) for value in aware])


def _text(values: list[str]) -> tuple[str, str, int]:
    return _bytes([value.encode() for value in values])


def _bytes(values: list[bytes]) -> tuple[str, str, int]:
    return hashlib.sha256(min(values)).hexdigest(), hashlib.sha256(max(values)).hexdigest(), sum(map(len, values))


_BY_MEASURE: dict[str, Any] = {
    "integer": _integer,
    "boolean": _boolean,
    "float": _float,
    "timestamp": _timestamp,
    "text": _text,
    "bytes": _bytes,
}
