"""The ledger in the data bucket."""

from datetime import datetime
from typing import Literal, Self

from transient_mwaa.aws.bucket import Bucket
from transient_mwaa.aws.exports import Exports
from transient_mwaa.aws.price_list import PriceList
from transient_mwaa.aws.records import Records
from transient_mwaa.domain import layout, ledger
from transient_mwaa.domain.patience import moment


class Books:
    """Closes cycles: one JSON document each, under the same key when it is closed twice."""

    def __init__(self, bucket: Bucket, records: Records, price_list: PriceList) -> None:
        self._bucket = bucket
        self._records = records
        self._price_list = price_list

    @classmethod
    def from_env(cls) -> Self:
        return cls(Bucket.from_env(), Records.from_env(), PriceList.from_env())

    def close(
        self,
        environment: str,
        cycle_id: str,
        action: Literal["sleep", "wake"],
        outcome: Literal["asleep", "awake", "failed"],
        error: str,
        export_id: str,
        started_at: datetime,
        now: datetime,
    ) -> ledger.CycleRecord:
        """Writes the cycle's record into the ledger and returns it; `error` and `export_id` are "" for none."""
        record = self._records.read(environment)
        blueprint = self._bucket.find(record.blueprint_key) if record.blueprint_key else None
        document = blueprint.json() if blueprint else {}
        environment_class = document.get("request", {}).get("EnvironmentClass", "")
        cut_off = self._bucket.find(layout.cut_off(environment))
        verdict = Exports(self._bucket).verdict(environment, export_id) if export_id else None
        closed = ledger.close(
            environment=environment,
            cycle_id=cycle_id,
            action=action,
            outcome=outcome,
            error=error,
            started_at=started_at,
            export_id=export_id,
            verdict=verdict,
            environment_class=environment_class,
            price=self._price_list.price(environment_class),
            deleted_at=moment(record.deleted_at) if record.deleted_at else None,
            created_at=moment(record.incarnation) if record.incarnation else None,
            now=now,
            cut_off=tuple(f"{run['dag_id']} ({run['run_id']})" for run in (cut_off.json()["runs"] if cut_off else ())),
            eager_dags=tuple(document.get("eager_dags", ())),
            remarks=tuple(document.get("remarks", ())),
        )
        self._bucket.write_json(layout.ledger(environment, cycle_id), closed.to_json())
        return closed
