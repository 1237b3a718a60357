"""Pauses each DAG once its work is done, after writing down which DAGs were active."""

import os
from datetime import UTC, datetime, timedelta
from typing import Any

from aws_lambda_powertools import Logger

from transient_mwaa.aws.airflow_cli import AirflowCli
from transient_mwaa.aws.airflow_rest import AirflowRest
from transient_mwaa.aws.owed_dags import OwedDags
from transient_mwaa.aws.records import Records
from transient_mwaa.domain.patience import moment
from transient_mwaa.domain.quiesce import Drain, Policy, plan_drain

logger = Logger()
cli = AirflowCli.from_env()
rest = AirflowRest.from_env()
owed_dags = OwedDags.from_env()
records = Records.from_env()
policy = Policy(os.environ["DRAIN_POLICY"])
limit = timedelta(minutes=int(os.environ["DRAIN_MINUTES"]))


@logger.inject_lambda_context
def handler(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """Pauses each DAG once its work is done, after writing down which DAGs were active."""
    name, now = event["environment"], datetime.now(UTC)
    records.read(name).require_lease(event["owner"], event["fence"])
    drain = Drain(moment(event["waiting_since"]), moment(event["give_up_at"]), limit, policy)
    owed, look = owed_dags.read(name), rest.look(name)
    plan = plan_drain(look, owed, drain, now)
    owed_dags.write(plan.owed, before=owed)
    owed_dags.write_cut_off(name, plan.cut_off, look, now)
    cli.unpause(name, plan.unpause)
    records.read(name).require_lease(event["owner"], event["fence"])  # whoever took over has given them back already
    cli.pause(name, plan.pause)
    logger.info("Drained", extra={"state": plan.state, "pause": plan.pause, "blocking": plan.blocking})
    return {
        "state": plan.state,
        "active": plan.active,
        "unfinished": len(plan.blocking),
        "owed": len(plan.owed.dag_ids),
        "cut_off": len(plan.cut_off),
    }
