"""Looks at the record, its executions, MWAA, the owed DAGs and the calendar, and answers with one remedy."""

from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit

from transient_mwaa.aws.calendars import calendar_from_env
from transient_mwaa.aws.executions import Executions
from transient_mwaa.aws.mwaa import Mwaa, incarnation, status_of, webserver_url
from transient_mwaa.aws.owed_dags import OwedDags
from transient_mwaa.aws.records import Records
from transient_mwaa.domain.patience import moment
from transient_mwaa.domain.recovery import Call, Seen, diagnose, named_executions

logger = Logger()
metrics = Metrics(namespace="TransientMWAA")
mwaa = Mwaa.from_env()
records = Records.from_env()
executions = Executions.from_env()
owed_dags = OwedDags.from_env()
calendar = calendar_from_env()


def emit(call: Call, as_planned: bool, evening_minutes: int | None) -> None:
    """AwakeAsPlanned, 1 or 0, whenever the watchdog looks. Its absence is an alarm, too: then nobody watches.

    EveningMinutes only while an evening is at work: Step Functions says how long it took once it is over, if ever.
    """
    if call.by_watchdog:
        metrics.add_dimension("environment", call.environment)
        metrics.add_metric("AwakeAsPlanned", MetricUnit.Count, int(as_planned))
        if evening_minutes is not None:
            metrics.add_metric("EveningMinutes", MetricUnit.NoUnit, evening_minutes)
        metrics.flush_metrics()


@logger.inject_lambda_context
def handler(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """Looks at the record, its executions, MWAA, the owed DAGs and the calendar, and answers with one remedy."""
    call = Call.from_input(event["input"])
    record = records.read(call.environment)
    environment = mwaa.describe(call.environment)
    seen = Seen(
        record=record,
        call=call,
        execution=event["execution"],
        waiting_since=moment(event["waiting_since"]),
        endings={arn: executions.ending(arn) for arn in named_executions(record, call)},
        status=status_of(environment),
        incarnation=incarnation(environment),
        webserver_url=webserver_url(environment),
        outstanding=owed_dags.read(call.environment).outstanding,
    )
    now = datetime.now(UTC)
    diagnosis = diagnose(seen, calendar(), now)
    emit(call, diagnosis.as_planned, seen.evening_minutes(now))
    logger.info("Diagnosed", extra={"diagnosis": diagnosis.as_dict()})
    return diagnosis.as_dict()
