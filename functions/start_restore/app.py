"""Orders the restore of the last verified export and triggers the restore DAG once Airflow knows it."""

from typing import Any

from aws_lambda_powertools import Logger

from transient_mwaa.aws.bucket import Bucket
from transient_mwaa.aws.mwaa import Mwaa, incarnation
from transient_mwaa.aws.owed_dags import OwedDags
from transient_mwaa.aws.own_dags import OwnDags
from transient_mwaa.aws.records import Records
from transient_mwaa.domain import layout
from transient_mwaa.domain.cycle import RESTORE_DAG, run_name
from transient_mwaa.domain.patience import moment
from transient_mwaa.domain.quiesce import owed_with_its_memory
from transient_mwaa.domain.restore import order, require_restorable

logger = Logger()
bucket = Bucket.from_env()
mwaa = Mwaa.from_env()
owed_dags = OwedDags.from_env()
own_dags = OwnDags.from_env()
records = Records.from_env()


@logger.inject_lambda_context
def handler(event: dict[str, Any], _context: Any) -> dict[str, str]:
    """Orders the restore of the last verified export and triggers the restore DAG once Airflow knows it."""
    name, asked_at = event["environment"], moment(event["asked_at"])
    record = records.read(name)
    record.require_lease(event["owner"], event["fence"])
    restore_id = run_name(asked_at, event["execution"])
    require_restorable(record, event["incarnation"], incarnation(mwaa.require(name)))
    manifest = bucket.read(record.manifest_key, record.manifest_version_id)
    ordered = order(record, event["incarnation"], restore_id, manifest, asked_at, event["accept_clashes"])
    owed = owed_dags.read(name)
    owed_dags.write(owed_with_its_memory(owed), before=owed)
    bucket.write_json(layout.restore_order(name), ordered)
    own_dags.start(name, RESTORE_DAG, restore_id, {})
    logger.info("Started the restore", extra={"restore_id": restore_id, "export_id": record.export_id})
    return {"restore_id": restore_id, "dag_id": RESTORE_DAG}
