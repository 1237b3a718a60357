"""DAGs that would run before their history is back."""

import pytest

from transient_mwaa.domain.eager import Schedule, eager, require_accepted
from transient_mwaa.domain.errors import EagerDags

pytestmark = pytest.mark.unit

SALES = Schedule("sales_daily", starts_by_itself=True)
PAST = Schedule("past", starts_by_itself=True, catchup=True)
LONG = Schedule("d" * 60, starts_by_itself=None)


def test_those_that_start_by_themselves_or_may():
    usual = Schedule("usual", starts_by_itself=False, catchup=True)
    own = Schedule("db_export_dag", starts_by_itself=True)
    assert eager([SALES, usual, own, LONG, PAST]) == (LONG, PAST, SALES)


def test_each_is_named_with_what_is_special_about_it():
    with pytest.raises(EagerDags) as error:
        require_accepted("dev", [LONG, PAST, SALES], [])
    assert f"{LONG.dag_id} (it may: MWAA cannot be asked about a name as long as this)" in str(error.value)
    assert "past (all past intervals: catchup), sales_daily. Take is_paused" in str(error.value)


@pytest.mark.parametrize("accepted", [["*"], ["sales_*", "past"], ["other", "past", "sales_daily"]])
def test_what_was_accepted_by_name_or_pattern_is_not_refused(accepted):
    require_accepted("dev", [PAST, SALES], accepted)


@pytest.mark.parametrize(("accepted", "named"), [(["sales_*"], "past"), ([""], "past"), (["PAST", "sales"], "past")])
def test_what_was_not_is_named_and_nothing_else(accepted, named):
    with pytest.raises(EagerDags, match=named) as error:
        require_accepted("dev", [PAST, SALES], accepted)
    assert ("sales_daily" in str(error.value)) is (accepted != ["sales_*"])


def test_nothing_is_nothing():
    require_accepted("dev", [], [])
