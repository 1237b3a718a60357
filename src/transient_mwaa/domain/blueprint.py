"""The blueprint: the CreateEnvironment request that would bring an environment back, derived from GetEnvironment.

The members are never listed by hand. They come from the service model, handed in as plain data:

    {"type": "structure", "sensitive": bool, "required": [name], "members": {name: shape}}
    {"type": "list", "sensitive": bool, "min": int, "max": int | None, "element": shape}
    {"type": "map", "sensitive": bool, "min": int, "max": int | None, "key": shape, "value": shape}
    {"type": "string" | "integer" | ..., "sensitive": bool, "min": int, "max": int | None}

`min` and `max` are numbers of elements or characters, and for an integer its values.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from transient_mwaa.domain.errors import BlueprintChanged

Shape = Mapping[str, Any]

BLUEPRINT_VERSION = 1

FILES = {"requirements": "Requirements", "plugins": "Plugins", "startup_script": "StartupScript"}
"""Our names for the three files an environment is made with, and MWAA's prefix of ...S3Path, ...S3ObjectVersion."""


SIZES: Mapping[str, Callable[[Any], int]] = {"integer": int, "string": len, "list": len, "map": len}
"""What the model's bounds are about, for each type that has any."""


@dataclass(frozen=True)
class Derived:
    """What an answer of GetEnvironment yields; anything in `problems` means that something would be lost."""

    request: dict[str, Any]
    sensitive: dict[str, Any]
    problems: tuple[str, ...]


def derive(answer: Mapping[str, Any], create: Shape, environment: Shape) -> Derived:
    """Derives the request: what `create` accepts is kept, what only `environment` knows is read-only and dropped,
    anything else is a named problem.

    answer       GetEnvironment's Environment, with members that the model does not know left in it
    create       the input shape of CreateEnvironment
    environment  the shape of Environment
    """
    problems: list[str] = []
    kept = _project(answer, create, environment, "", problems)
    problems += [
        f"{name} is required to create an environment and GetEnvironment did not return it"
        for name in create["required"]
        if name not in kept
    ]
    problems += _out_of_bounds(kept, create, "")
    options = kept.get("AirflowConfigurationOptions", {})
    if str(options.get("core.dags_are_paused_at_creation", True)).strip().lower() not in ("true", "1"):
        problems.append(
            "core.dags_are_paused_at_creation is off, so in the morning DAGs would run before their history is back: "
            "remove the option"
        )
    sensitive = {name: value for name, value in kept.items() if _is_sensitive(create["members"][name])}
    request = {name: value for name, value in kept.items() if name not in sensitive}
    return Derived(request, sensitive, tuple(problems))


def _project(answer: Mapping[str, Any], create: Shape, known: Shape, where: str, problems: list[str]) -> dict[str, Any]:
    """The members of a structure that `create` accepts."""
    kept: dict[str, Any] = {}
    for name, value in answer.items():
        path = f"{where}{name}"
        if value is None:
            continue
        if name not in create["members"]:
            if name not in known["members"]:
                problems.append(
                    f"{path} is not known to this version of botocore, so it would be lost: update botocore"
                )
            continue
        shape, known_shape = create["members"][name], known["members"].get(name, create["members"][name])
        wanted = _value(value, shape, known_shape, path, problems)
        if name == "Tags":
            # Tags of AWS's own (aws:cloudformation:...) cannot be set by a caller.
            wanted = {key: tag for key, tag in wanted.items() if not key.startswith("aws:")}
        if _says_something(wanted, shape):
            kept[name] = wanted
    if where and kept:
        problems += [f"{where}{name} is required and missing" for name in create["required"] if name not in kept]
    return kept


def _value(value: Any, shape: Shape, known: Shape, path: str, problems: list[str]) -> Any:
    if shape["type"] == "structure":
        return _project(value, shape, known, f"{path}.", problems)
    if shape["type"] == "list":
        return [_value(item, shape["element"], known["element"], f"{path}[]", problems) for item in value]
    if shape["type"] == "map":
        return {
            key: _value(item, shape["value"], known["value"], f"{path}[{key}]", problems) for key, item in value.items()
        }
    return value


def _out_of_bounds(value: Any, shape: Shape, where: str) -> Iterator[str]:
    """Where the request has more or less than the model allows, in numbers alone: values may be secret."""
    kind = shape["type"]
    if kind == "structure":
        for name, member in value.items():
            yield from _out_of_bounds(member, shape["members"][name], f"{where}.{name}" if where else name)
        return
    if kind in SIZES:
        size, least, most = SIZES[kind](value), shape["min"], shape["max"]
        if size < least or (most is not None and size > most):
            yield f"{where}: {size} is out of bounds, MWAA takes {least} to {'any' if most is None else most}"
    if kind == "list":
        for item in value:
            yield from _out_of_bounds(item, shape["element"], f"{where}[]")
    if kind == "map":
        for key, item in value.items():
            yield from _out_of_bounds(key, shape["key"], f"{where}[{key[:20]}] (key)")
            yield from _out_of_bounds(item, shape["value"], f"{where}[{key[:20]}]")


def _says_something(value: Any, shape: Shape) -> bool:
    """An empty value where the model asks for at least one element would be refused, and says nothing."""
    if shape["type"] == "structure":
        return bool(value)
    return not (shape.get("min", 0) >= 1 and value in ("", [], {}))


def _is_sensitive(shape: Shape) -> bool:
    inner = [*shape.get("members", {}).values(), *(shape[part] for part in ("element", "value") if part in shape)]
    return bool(shape["sensitive"]) or any(_is_sensitive(part) for part in inner)


def files_of(request: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Our name -> (path in the environment's bucket, pinned version id or "") of the files the request names."""
    return {
        ours: (request[f"{theirs}S3Path"], request.get(f"{theirs}S3ObjectVersion", ""))
        for ours, theirs in FILES.items()
        if request.get(f"{theirs}S3Path")
    }


def with_versions(request: Mapping[str, Any], versions: Mapping[str, str]) -> dict[str, Any]:
    """The request with other object versions: our file name -> version id that exists now."""
    return {**request, **{f"{FILES[ours]}S3ObjectVersion": version for ours, version in versions.items()}}


def to_bytes(document: Mapping[str, Any]) -> bytes:
    """The blueprint's file, the same bytes for the same document."""
    return json.dumps(document, indent=1, sort_keys=True).encode()


def read(body: bytes, environment: str, sha256: str) -> dict[str, Any]:
    """The blueprint in these bytes; raises BlueprintChanged unless they are the recorded ones of this environment."""
    if hashlib.sha256(body).hexdigest() != sha256:
        message = (
            f"The stored blueprint of {environment} is not the one that was recorded. "
            "Restore the recorded version of the object in the data bucket; nothing was done."
        )
        raise BlueprintChanged(message)
    document: dict[str, Any] = json.loads(body)
    if document["environment"] != environment or document["blueprint_version"] != BLUEPRINT_VERSION:
        message = (
            f"The stored blueprint is that of {document['environment']} (version {document['blueprint_version']}), "
            f"not of {environment} (version {BLUEPRINT_VERSION}). Check the environment's record."
        )
        raise BlueprintChanged(message)
    return document
