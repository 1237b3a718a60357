"""Every function of .aws-sam/build, those of nested stacks among them, with its layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
BUILD = ROOT / ".aws-sam/build"

LARGEST = 15_000_000
LARGEST_WITH_PARQUET = 200_000_000
"""Bytes unzipped of a function and its layers. Lambda takes 250 MB."""
READS_PARQUET = "VerifyFileFunction"


@dataclass(frozen=True)
class Artefact:
    """One function as it is uploaded."""

    name: str
    """Its logical id, after that of the nested stack: "Sample/UploadFilesFunction"."""
    folder: Path
    layers: tuple[Path, ...]
    handler: str
    variables: Mapping[str, str]

    @property
    def size(self) -> int:
        """Bytes unzipped: the function's own files and those of all its layers, as Lambda's quota counts them."""
        return sum(path.stat().st_size for part in (self.folder, *self.layers) for path in files(part))

    @property
    def limit(self) -> int:
        return LARGEST_WITH_PARQUET if self.name == READS_PARQUET else LARGEST


def files(folder: Path) -> list[Path]:
    """All files in it, however deep; in a layer that is not built (dags/), without what Python has left there."""
    is_built = BUILD.parent.name in folder.parts
    found = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in found if is_built or "__pycache__" not in path.parts)


def built(build: Path = BUILD) -> list[Artefact]:
    """All functions. Raises FileNotFoundError before `make build`."""
    return list(_functions(build / "template.yaml", {}, ""))


def _functions(template: Path, given: Mapping[str, Path], prefix: str) -> Iterator[Artefact]:
    """`given`: parameters of a nested stack that stand for layers of the one around it."""
    document = yaml.safe_load(template.read_text())
    resources, shared = document["Resources"], document.get("Globals", {}).get("Function", {})
    layers = dict(given)
    for name, resource in resources.items():
        if resource["Type"] == "AWS::Serverless::LayerVersion":
            layers[name] = (template.parent / resource["Properties"]["ContentUri"]).resolve()
    for name, resource in resources.items():
        own = resource.get("Properties", {})
        if resource["Type"] == "AWS::Serverless::Function":
            variables = {}
            for each in (shared, own):
                variables |= each.get("Environment", {}).get("Variables", {})
            yield Artefact(
                name=prefix + name,
                folder=(template.parent / own["CodeUri"]).resolve(),
                layers=tuple(layers[each["Ref"]] for each in [*shared.get("Layers", []), *own.get("Layers", [])]),
                handler=own.get("Handler") or shared["Handler"],
                variables={key: _plain(value, document.get("Parameters", {})) for key, value in variables.items()},
            )
        elif resource["Type"] == "AWS::CloudFormation::Stack":
            handed = own.get("Parameters", {})
            inner = {
                key: layers[value["Ref"]]
                for key, value in handed.items()
                if isinstance(value, dict) and value.get("Ref") in layers
            }
            yield from _functions(template.parent / own["TemplateURL"], inner, f"{name}/")


def _plain(value: Any, parameters: Mapping[str, Any]) -> str:
    """Something of the kind that CloudFormation would put there."""
    if not isinstance(value, dict):
        return str(value)
    ((function, argument),) = value.items()
    if function == "Ref":
        return str(parameters.get(argument, {}).get("Default", argument))
    if function == "Fn::GetAtt":
        return "arn:aws:kms:us-east-1:123456789012:key/00000000-0000-0000-0000-000000000000"
    return ""
