"""`python -m local up`: a cloud with template.yaml on it, until Ctrl-C."""

from __future__ import annotations

import argparse
import signal
import threading
from pathlib import Path

from local.cloud import LocalCloud

ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m local", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="starts the cloud, deploys the template and stays")
    up.add_argument("--home", type=Path, default=ROOT / ".local" / "cloud", help="where logs and environments go")
    up.add_argument("--port", type=int, default=4566, help="of the endpoint")
    up.add_argument("--airflow", choices=["process", "memory"], default="process", help="what an environment runs")
    up.add_argument("--wait-scale", type=float, default=1.0, help="factor on every wait and retry delay")
    up.add_argument("--template", type=Path, default=ROOT / "template.yaml")
    up.add_argument("--environment", default="dev", help="name of the environment that sleeps")
    up.add_argument(
        "--parameter", action="append", default=[], metavar="NAME=VALUE", help="further template parameters"
    )
    given = parser.parse_args()

    stop = threading.Event()
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, lambda *_: stop.set())
    with LocalCloud(given.home, airflow=given.airflow, wait_scale=given.wait_scale, port=given.port) as cloud:
        bucket = f"{given.environment}-airflow"
        parameters = {"EnvironmentName": given.environment, "EnvironmentBucketName": bucket}
        parameters |= dict(each.split("=", 1) for each in given.parameter)
        make_airflow_bucket(cloud, parameters["EnvironmentBucketName"])
        stack = cloud.deploy(given.template, parameters)
        print("\n".join(f"export {name}={value}" for name, value in cloud.environ.items()))
        print("\n".join(f"# {name}: {value}" for name, value in sorted(stack.outputs.items())), flush=True)
        stop.wait()


def make_airflow_bucket(cloud: LocalCloud, bucket: str) -> None:
    """The bucket of an environment: versioned, closed to the public, as MWAA demands."""
    s3 = cloud.client("s3")
    s3.create_bucket(Bucket=bucket)
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    closed = dict.fromkeys(("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets"), True)
    s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=closed)


if __name__ == "__main__":
    main()
