"""docs/cost.md is what a recorded night comes to."""

import importlib.util
from pathlib import Path

import pytest
import yaml

from bench.cost import OTHERWISE, SECONDS, TARGET, alarm_metrics, columns, memory, tables, usd, verdict, whole
from bench.cycle import EXPRESS, Counts, recorded
from bench.prices import PRICES

pytestmark = pytest.mark.stories

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def found():
    return recorded()


def test_the_page_is_what_was_recorded(found):
    spec = importlib.util.spec_from_file_location("make_tables", ROOT / "docs/make_tables.py")
    make_tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_tables)
    text = (ROOT / "docs/cost.md").read_text()
    assert text == make_tables.rewritten(text, tables(found)), "run `make docs`"


def test_every_kind_of_request_was_recorded(found):
    """A table with an empty line would be a recorder that is deaf."""
    together = {key: sum(counts.used[key] for counts in found.values()) for key in PRICES}
    computed = {"express_gb_seconds", "lambda_gb_seconds", "log_gb"}
    assert {key for key, number in together.items() if number == 0} == computed


def test_what_an_evening_must_do_is_in_it(found):
    evening = found["evening"]
    assert evening.invocations["verify_file"] == evening.files > 5
    assert evening.invocations["delete_environment"] == evening.invocations["write_blueprint"] == 1
    # The environment's own: a file for each that is verified, the secrets, the manifest.
    assert evening.used["s3_writes"] > evening.files * 2
    assert found["morning"].invocations["create_environment"] == 1


def test_nobody_looks_before_it_can_be_over_and_then_once_a_minute(found):
    """Whoever polls more often, or too early, makes the night dearer: deleting takes 15 minutes, creating 25 here."""
    assert found["evening"].invocations["describe_environment"] <= 5 + 3
    assert found["morning"].invocations["describe_environment"] <= 10 + 3


def test_looking_after_it_takes_no_transition_as_long_as_all_is_well(found):
    template = (ROOT / "template.yaml").read_text()
    assert template.count("Type: EXPRESS") == len(EXPRESS) == 1
    for part in ("watchdog asleep", "watchdog awake"):
        assert found[part].used["transitions"] == 0
        assert found[part].used["express_requests"] == found[part].executions == 1
        assert found[part].invocations == {"diagnose": 1}


def test_the_sum_is_that_of_its_parts(found):
    parts = columns(found)
    night = parts.pop("**a night**")
    assert usd(night) == pytest.approx(sum(usd(used) for used in list(parts.values())[:3]))
    # Three rules of the price lists, by hand.
    assert usd({"transitions": 4000}) == pytest.approx(0.10)
    assert usd({"s3_writes": 2000, "s3_reads": 10_000}) == pytest.approx(0.014)
    assert usd({"lambda_gb_seconds": 1000}) == pytest.approx(0.0133334)
    assert ("hit" in verdict(found)) == (usd(night) < TARGET)


def test_every_metric_that_an_alarm_watches_is_charged():
    template = (ROOT / "template.yaml").read_text()
    alarms, metrics = template.count("Type: AWS::CloudWatch::Alarm"), template.count("MetricStat:")
    formulas = template.count("Expression: ") - template.count("ScheduleExpression: ")
    assert alarm_metrics() == metrics + alarms - formulas > alarms


def test_memory_and_seconds_are_those_of_the_template_s_functions():
    class Loader(yaml.SafeLoader):
        """Intrinsic functions as nothing."""

    Loader.add_multi_constructor("!", lambda *_: None)
    resources = yaml.load((ROOT / "template.yaml").read_text(), Loader)["Resources"].values()
    functions = {
        Path(each["Properties"]["CodeUri"]).name: each["Properties"]["MemorySize"]
        for each in resources
        if each["Type"] == "AWS::Serverless::Function"
    }
    assert {name: size * 1024 for name, size in memory().items()} == functions
    assert set(SECONDS) <= set(functions)
    counts = Counts()
    counts.invocations.update({"verify_file": 3, "decide": 2})
    gb_seconds = 3 * SECONDS["verify_file"] * functions["verify_file"] + 2 * OTHERWISE * functions["decide"]
    assert whole(counts)["lambda_gb_seconds"] == pytest.approx(gb_seconds / 1024)
