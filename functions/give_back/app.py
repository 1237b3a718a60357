"""Unpauses the DAGs that were active, each as soon as Airflow knows it."""

from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools import Logger

from transient_mwaa.aws.airflow_cli import AirflowCli
from transient_mwaa.aws.airflow_rest import AirflowRest
from transient_mwaa.aws.owed_dags import OwedDags, give_back
from transient_mwaa.aws.records import Records
from transient_mwaa.domain.cycle import Phase
from transient_mwaa.domain.patience import moment
from transient_mwaa.domain.quiesce import require_parsed

logger = Logger()
cli = AirflowCli.from_env()
rest = AirflowRest.from_env()
owed_dags = OwedDags.from_env()
records = Records.from_env()


@logger.inject_lambda_context
def handler(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """Unpauses the DAGs that were active, each as soon as Airflow knows it."""
    name = event["environment"]
    record = records.read(name)
    record.require_lease(event["owner"], event["fence"])
    owed, waking = owed_dags.read(name), record.phase == Phase.WAKING
    left = give_back(owed, owed_dags, rest, cli, waking=waking)
    given = len(owed.dag_ids) - len(left.owed.dag_ids)
    logger.info("Gave DAGs back", extra={"given": given, "missing": left.missing})
    require_parsed(left.missing, moment(event["waiting_since"]), datetime.now(UTC))
    return {"done": not left.owed.dag_ids, "given": given, "missing": len(left.missing)}
