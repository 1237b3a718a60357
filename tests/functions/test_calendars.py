"""Public holidays, of which a cold start imports one country instead of all."""

import json
import subprocess
import sys

import pytest

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
