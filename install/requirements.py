"""Our requirements beside the owner's, whose lines stay as they are."""

from __future__ import annotations

import re
from dataclasses import dataclass

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

BEGIN = "# --- Transient MWAA: from here, written by `make install-dags`"
END = "# --- Transient MWAA: until here"
OFFLINE = "--no-index"
HASHED = ("--require-hashes", "--hash=")


@dataclass(frozen=True)
class Merged:
    """The text to write, what of ours is in it, what a line of the owner's covers, and what cannot go together."""

    text: str
    added: tuple[str, ...]
    covered: tuple[str, ...]
    conflicts: tuple[str, ...]


def merge(theirs: str, ours: str) -> Merged:
    """Every line outside our block is the owner's and is kept byte for byte; our block comes last.

    A line of ours is left out when the owner pins a version that fits it. Where the owner names the package in another
    way, ours stands beside it: pip wants both. A pin that does not fit, or a file that allows no further line, is a
    conflict, in words. Merging again changes nothing.
    """
    owner, block = _without_block(theirs)
    wanted = [Requirement(line) for line in _lines(ours)]
    conflicts = [*_foreign(block, wanted), *_closed(owner)]
    added, covered = [], []
    for ours_of_it in wanted:
        lines = [line for line in _lines(owner) if _name(line) == canonicalize_name(ours_of_it.name)]
        problems = [problem for line in lines if (problem := _problem(line, ours_of_it))]
        conflicts += problems
        if not problems and any(_pinned(line) for line in lines):
            covered.append(str(ours_of_it))
        else:
            added.append(str(ours_of_it))
    if _lines(block) == added:
        return Merged(theirs, tuple(added), tuple(covered), tuple(conflicts))
    if not added:
        return Merged(owner, (), tuple(covered), tuple(conflicts))
    gap = "" if not owner or owner.endswith("\n") else "\n"
    return Merged(
        "".join([owner, gap, *(f"{line}\n" for line in (BEGIN, *added, END))]),
        tuple(added),
        tuple(covered),
        tuple(conflicts),
    )


def _without_block(text: str) -> tuple[str, str]:
    """The owner's text, and what stands between our two marks."""
    before, mark, rest = text.partition(f"{BEGIN}\n")
    if not mark:
        return text, ""
    block, end, after = rest.partition(f"{END}\n")
    # Without its end nobody knows where the block ends: then all of it is the owner's.
    return (before + after, block) if end else (text, "")


def _lines(text: str) -> list[str]:
    """Without comments and blank lines; a line that goes on in the next one is one."""
    joined = re.sub(r"\\\r?\n", " ", text.removeprefix("\ufeff"))
    stripped = (re.sub(r"(^|\s)#.*$", "", line).strip() for line in joined.splitlines())
    return [line for line in stripped if line]


def _name(line: str) -> str:
    """The package of a line, "" for an option. A line that is none of PEP 508 still begins with its name."""
    found = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", line)
    return canonicalize_name(found[0]) if found else ""


def _requirement(line: str) -> Requirement | None:
    try:
        return Requirement(re.split(r"\s--", line)[0])
    except InvalidRequirement:
        return None


def _pinned(line: str) -> Version | None:
    """The one version that a line asks for, on every machine; None when it leaves a choice."""
    requirement = _requirement(line)
    specifiers = list(requirement.specifier) if requirement and requirement.marker is None else []
    if len(specifiers) != 1 or specifiers[0].operator not in {"==", "==="}:
        return None
    try:
        return Version(specifiers[0].version)
    except InvalidVersion:  # ==16.*
        return None


def _problem(line: str, ours: Requirement) -> str:
    requirement = _requirement(line)
    if requirement is None or requirement.url:
        return f"your line “{line}” brings {ours.name} from somewhere else; we need {ours}"
    if requirement.marker is None and not _some_version_fits(requirement, ours):
        return f"your line “{line}” does not fit {ours}"
    return ""


def _some_version_fits(*requirements: Requirement) -> bool:
    """Tried with each version that is named, one just after it, the first and the last of all."""
    named = {each.version.removesuffix(".*") for requirement in requirements for each in requirement.specifier}
    tried = ["0.0.1", "9999", *named, *(f"{version}.0.0.1" for version in named)]
    return any(all(each.specifier.contains(version, prereleases=True) for each in requirements) for version in tried)


def _closed(owner: str) -> list[str]:
    """Files to which no line can be added."""
    lines = _lines(owner)
    found = []
    if any(line.startswith(OFFLINE) for line in lines):
        found.append("your requirements are installed without an index: use `make dags-bundle`, see docs/deploy.md")
    if any(word in line for line in lines for word in HASHED):
        found.append("your requirements carry hashes, and then every line must: add ours with theirs by hand")
    return found


def _foreign(block: str, wanted: list[Requirement]) -> list[str]:
    """Lines that somebody has written into our block."""
    names = {canonicalize_name(each.name) for each in wanted}
    return [
        f"the line “{line}” stands in our part of the file: move it out of there"
        for line in _lines(block)
        if _name(line) not in names
    ]
