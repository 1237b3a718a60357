"""Public holidays, of which a cold start imports one country instead of all."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from holidays import list_supported_countries

from local.deploy import read_yaml

pytestmark = pytest.mark.functions

ALL = """
import json, sys
from holidays import country_holidays, list_supported_countries
from transient_mwaa.aws import calendars
if sys.argv[1] == "ours":
    of = calendars._public_holidays
    of("DE-BW")
    loaded = [name for name in sys.modules if name.startswith("holidays.countries.")]
else:
    of, loaded = country_holidays, []
days = {}
for country in list_supported_countries(include_aliases=False):
    found = of(country)
    found.get("2026-01-01")
    days[country] = {day.isoformat(): name for day, name in found.items()}
print(json.dumps({"loaded": loaded, "days": days}))
"""


def everywhere(whose):
    done = subprocess.run(
        [sys.executable, "-c", ALL, whose],
        capture_output=True,
        check=True,
        env={"PYTHONPATH": "src", "PYTHONUTF8": "1"},
        text=True,
    )
    return json.loads(done.stdout)


def test_one_country_is_imported_and_every_country_has_its_days():
    ours = everywhere("ours")
    assert ours["loaded"] == ["holidays.countries.germany"]
    assert ours["days"] == everywhere("the library's")["days"]
    assert len(ours["days"]) > 200
    assert ours["days"]["US"]["2026-07-04"] == "Independence Day"


@pytest.fixture(scope="module")
def accepts():
    """Whether CloudFormation takes a value for a parameter of the template."""
    parameters = read_yaml(Path(__file__).parents[2] / "template.yaml")["Parameters"]

    def accepts(name, value):
        return re.fullmatch(parameters[name]["AllowedPattern"], value) is not None

    return accepts


def test_the_template_takes_every_country_and_every_part_of_one(accepts):
    countries = list_supported_countries(include_aliases=True)
    places = [f"{country}-{part}" for country, parts in countries.items() for part in parts]
    assert all(accepts("Holidays", place) for place in ["", "US", "DE-BW", *countries, *places])
    for nonsense in ("Germany", "de", "DE-", "DE,FR", "24.12.2026"):
        assert not accepts("Holidays", nonsense), nonsense


def test_the_template_takes_dates_that_exist_in_some_year_alone(accepts):
    """Each by itself or as they are written: CloudFormation's reference leaves open what it compares."""
    for dates in ("", "2026-12-24", "2026-12-24,2026-12-31", "2026-12-24, 2026-12-31,2027-01-02"):
        assert accepts("ExtraHolidays", dates), dates
    for nonsense in (
        "24.12.2026",
        "2026-13-01",
        "2026-12-242026-12-31",
        "2026-12-24,",
        "2026-12-24;2026-12-31",
        "soon",
    ):
        assert not accepts("ExtraHolidays", nonsense), nonsense
