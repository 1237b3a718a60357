"""Makes lean and weighs what `sam build` made: build/sizes.json, function -> bytes unzipped of it and all its layers.

Layers count, as they do for Lambda's own quota: a layer that several functions share is in the number of each of them.
Run by `make build`. Sizes over their limit are shown as such, and end 0: tests/packaging holds the limits.
"""

import json

from artefacts.built import BUILD, ROOT, built
from artefacts.lean import lean

SIZES = ROOT / "build/sizes.json"


def main() -> None:
    """See the module."""
    found = built()
    for layer in {layer for each in found for layer in each.layers if layer.is_relative_to(BUILD)}:
        lean(layer / "python", "/opt/python")
    for each in found:
        lean(each.folder, "/var/task")
    artefacts = sorted(found, key=lambda each: (-each.size, each.name))
    SIZES.parent.mkdir(parents=True, exist_ok=True)
    SIZES.write_text(json.dumps({each.name: each.size for each in artefacts}, indent=1) + "\n")
    for each in artefacts:
        over = f"  over {each.limit / 1e6:.0f} MB" if each.size >= each.limit else ""
        print(f"{each.name:28} {each.size / 1e6:6.1f} MB{over}")


if __name__ == "__main__":
    main()
