"""Weighs every finding, the totals and the secrets, and writes a verdict with every reason."""

from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit

from transient_mwaa.aws.airflow_rest import AirflowRest
from transient_mwaa.aws.exports import Exports
from transient_mwaa.aws.last_look import LastLook
from transient_mwaa.aws.sealed_secrets import SealedSecrets
from transient_mwaa.domain.verdict import judge

logger = Logger()
metrics = Metrics(namespace="TransientMWAA")
exports = Exports.from_env()
rest = AirflowRest.from_env()
secrets = SealedSecrets.from_env()
last_look = LastLook.from_env()


@logger.inject_lambda_context
def handler(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """Weighs every finding, the totals and the secrets, and writes a verdict with every reason."""
    name, key, version_id = event["environment"], event["manifest_key"], event["manifest_version_id"]
    manifest = exports.manifest(name, event["export_id"], key, version_id)
    totals = rest.totals(name)
    verdict = judge(
        manifest,
        key,
        version_id,
        findings=exports.findings(manifest),
        secrets=secrets.examine(manifest),
        totals=totals,
        incarnation=event["incarnation"],
        verified=exports.verified(name),
        now=datetime.now(UTC),
    )
    verdict_key = exports.write_verdict(verdict)
    logger.info("Judged the export", extra={"good": verdict.good, "reasons": verdict.reasons[:20]})
    last_look.explain(verdict, manifest, totals)
    metrics.add_dimension("environment", name)
    metrics.add_metric("ExportedRows", MetricUnit.Count, verdict.rows)
    metrics.flush_metrics()
    return {
        "good": verdict.good,
        "reasons": len(verdict.reasons),
        "rows": verdict.rows,
        "verdict_key": verdict_key,
    }
