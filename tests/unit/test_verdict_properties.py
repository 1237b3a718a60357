"""A verdict is good for one set of evidence alone, in whatever order it comes."""

import copy
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit import promise
from tests.unit.test_manifest import at, paths
from transient_mwaa.domain.evidence import Finding

pytestmark = pytest.mark.unit

PROMISED = promise.parse(promise.document())
GOOD = promise.findings(PROMISED, promise.evidence(PROMISED))
WRITTEN: list[dict[str, Any]] = [json.loads(json.dumps(finding.to_json())) for finding in GOOD if finding]
indices = st.integers(0, len(WRITTEN) - 1)
VALUES: list[Any] = [None, True, False, 0, 1, -1, "", "x", [], {}, ["x"], {"x": 1}, 1.5]


@settings(deadline=None)
@given(st.permutations(GOOD))
def test_the_order_of_findings_does_not_matter(findings: list[Finding | None]) -> None:
    assert promise.verdict(PROMISED, findings=findings) == promise.verdict(PROMISED)


@settings(deadline=None)
@given(st.permutations(GOOD), indices, st.data())
def test_nor_does_it_when_one_is_bad(findings: list[Finding | None], index: int, data: st.DataObject) -> None:
    bad = data.draw(st.sampled_from([None, replace(GOOD[index], reasons=("x",))])) if GOOD[index] else None
    sorted_ones = [bad if place == index else finding for place, finding in enumerate(GOOD)]
    shuffled = [bad if finding is GOOD[index] else finding for finding in findings]
    verdict = promise.verdict(PROMISED, findings=shuffled)
    assert not verdict.good
    assert verdict == promise.verdict(PROMISED, findings=sorted_ones)


@settings(deadline=None)
@given(st.sets(indices, min_size=1), st.booleans())
def test_every_missing_finding_is_named(missing: set[int], gaps: bool) -> None:
    """Whether it is known to be missing, or was never heard of."""
    left = [None if place in missing else finding for place, finding in enumerate(GOOD)]
    verdict = promise.verdict(PROMISED, findings=left if gaps else [finding for finding in left if finding])
    assert verdict.reasons == tuple(f"{PROMISED.files[place].key}: nobody has verified it" for place in sorted(missing))


@settings(deadline=None, max_examples=400)
@given(indices, st.data())
def test_any_single_alteration_of_a_finding_makes_it_bad(index: int, data: st.DataObject) -> None:
    """One member, at any depth, becomes any other value, or is lost: it can no longer be read, or no longer agrees."""
    own = copy.deepcopy(WRITTEN[index])
    path = data.draw(st.sampled_from(paths(own)))
    before = at(own, path)
    after = data.draw(st.sampled_from([value for value in VALUES if json.dumps(value) != json.dumps(before)]))
    if data.draw(st.booleans()):
        at(own, path[:-1])[path[-1]] = after
    else:
        del at(own, path[:-1])[path[-1]]
    findings = list(GOOD)
    try:
        findings[index] = Finding.from_json(own)
    except (AttributeError, KeyError, TypeError, ValueError):
        findings[index] = None  # as `Exports.findings` does it
    if findings[index] == GOOD[index]:
        return  # the same, written otherwise: true for 1, "" for no reasons
    assert not promise.verdict(PROMISED, findings=findings).good, (path, before, after)


@settings(deadline=None)
@given(indices, indices)
def test_a_second_finding_about_a_file_must_be_good_too(index: int, place: int) -> None:
    finding = GOOD[index]
    assert finding is not None
    assert promise.verdict(PROMISED, findings=[*GOOD[:place], finding, *GOOD[place:]]).good
    liar = replace(finding, evidence=replace(finding.evidence, rows=finding.evidence.rows + 1))
    assert not promise.verdict(PROMISED, findings=[*GOOD[:place], liar, *GOOD[place:]]).good
