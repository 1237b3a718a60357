"""Unpauses the DAGs that were active, each as soon as Airflow knows it."""

from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools import Logger

from transient_mwaa.aws.airflow_cli import AirflowCli
from transient_mwaa.aws.airflow_rest import AirflowRest
from transient_mwaa.aws.owed_dags import OwedDags, give_back
from transient_mwaa.aws.records import Records
from transient_mwaa.domain.patience import moment
from transient_mwaa.domain.quiesce import give_up, require_given_back, require_memory

logger = Logger()
cli = AirflowCli.from_env()
rest = AirflowRest.from_env()
owed_dags = OwedDags.from_env()
records = Records.from_env()


@logger.inject_lambda_context
def handler(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """Unpauses the DAGs that were active, each as soon as Airflow knows it."""
    name, waiting_since = event["environment"], moment(event["waiting_since"])
    record = records.read(name)
    record.require_lease(event["owner"], event["fence"])
    owed, now = owed_dags.read(name), datetime.now(UTC)
    require_memory(record, owed)
    left = give_back(owed, owed_dags, rest, cli, record.phase)
    given = len(owed.dag_ids) - len(left.owed.dag_ids)
    logger.info("Gave DAGs back", extra={"given": given, "missing": left.missing, "held": left.held})
    owed_dags.write(give_up(left, waiting_since, now), before=left.owed)
    require_given_back(left, waiting_since, now)
    return {"done": not left.owed.outstanding, "given": given, "missing": len(left.missing)}
