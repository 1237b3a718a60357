"""Whether MWAA may assume a role, read from its trust policy."""

import pytest

from transient_mwaa.domain.execution_role import SERVICES, objections

pytestmark = pytest.mark.unit

BOTH = list(SERVICES)


def statement(services=BOTH, effect="Allow", action="sts:AssumeRole", **more):
    return {"Effect": effect, "Principal": {"Service": services}, "Action": action, **more}


@pytest.mark.parametrize(
    "statements",
    [
        [statement()],
        statement(),  # IAM takes a list of one without its brackets
        [statement(BOTH[0]), statement(BOTH[1])],
        [statement(action=["sts:TagSession", "sts:AssumeRole"])],
        [statement(action="sts:*")],
        [statement(Condition={"StringEquals": {"aws:SourceAccount": "123456789012"}})],
        [{"Effect": "Allow", "Principal": "*", "Action": "sts:AssumeRole"}],
        [statement(), statement("ec2.amazonaws.com", "Deny")],
        [statement(), statement(effect="Deny", Condition={"Bool": {"aws:SecureTransport": "false"}})],
        [statement(), statement(effect="Deny", action="sts:TagSession")],
    ],
)
def test_a_role_that_mwaa_can_assume(statements):
    assert objections({"Statement": statements}) == []


@pytest.mark.parametrize(
    ("statements", "missing"),
    [
        ([], BOTH),
        ([statement(BOTH[0])], BOTH[1:]),
        ([statement("airflow-env.amazonaws.com")], BOTH[:1]),
        ([statement(["lambda.amazonaws.com"])], BOTH),
        ([{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}], BOTH),
        ([statement(action="sts:TagSession")], BOTH),
        ([statement(), statement(effect="Deny")], BOTH),
        ([statement(), statement(BOTH[1], effect="Deny", action="*")], BOTH[1:]),
    ],
)
def test_one_that_it_cannot(statements, missing):
    assert objections({"Statement": statements}) == [f"it does not trust {service}" for service in missing]


def test_a_role_without_any_trust():
    assert len(objections({})) == 2
