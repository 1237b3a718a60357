"""checkov on the transformed templates: of a SAM template itself it sees little."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from local.deploy import translate
from tests.sample.test_templates import SAMPLE
from tests.template.test_template import PARAMETERS

pytestmark = pytest.mark.template

ROOT = Path(__file__).parents[2]
CHECKOV = ROOT / ".venv-checkov/bin/checkov"
NOT_FOLLOWED = {
    "CKV_AWS_18": "S3 access logs need a second bucket; who reads a bucket is in CloudTrail's data events.",
    "CKV_AWS_115": "Concurrency is limited by the Map state; a reserve would be taken from all others of the account.",
    "CKV_AWS_116": "Step Functions waits, and handles every failure; CloudFormation has a time-out for its resource.",
    "CKV_AWS_117": "A VPC is needed for a private web server alone.",
    "CKV_AWS_158": "Logs hold no data: no execution data, no secrets. CloudWatch encrypts them with a key of its own.",
    "CKV_AWS_173": "Variables of functions hold names and times. Lambda encrypts them with a key of its own.",
}
"""Check to the reason why we do not do what it wants."""
TEMPLATES = {
    "template.yaml": (
        PARAMETERS,
        300,
        {"CKV_AWS_27": "SQS encrypts the queue with a key of its own. Its messages hold names and times."},
    ),
    "sample/template.yaml": (
        SAMPLE,
        40,
        {"CKV_AWS_195": "What the jobs write lies in the data bucket, under its key; their logs hold none of it."},
    ),
}
"""Template to its parameters, how many checks pass at least, and what is not followed in it alone."""


@pytest.mark.parametrize("path", TEMPLATES)
def test_checkov_finds_nothing_but_what_we_have_a_reason_for(path, tmp_path):
    parameters, passed, of_its_own = TEMPLATES[path]
    translated, _ = translate(ROOT / path, parameters)
    not_followed = {**NOT_FOLLOWED, **of_its_own}
    template = tmp_path / "transformed.json"
    template.write_text(json.dumps(translated))
    command = [CHECKOV, "--file", template, "--framework", "cloudformation", "--quiet", "--skip-download"]
    answer = subprocess.run(
        [*command, "--output", "json"],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "LOG_LEVEL": "ERROR"},
        cwd=tmp_path,
    )
    assert answer.stdout, answer.stderr
    report = json.loads(answer.stdout)
    assert report["summary"]["parsing_errors"] == 0
    assert report["summary"]["passed"] > passed
    found = {
        check["check_id"]: f"{check['check_name']}: {check['resource']}" for check in report["results"]["failed_checks"]
    }
    assert {check: what for check, what in found.items() if check not in not_followed} == {}
    assert set(not_followed) - set(found) == set(), "no reason is needed any more"
