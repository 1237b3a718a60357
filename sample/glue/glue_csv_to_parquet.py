"""AWS Glue job: one CSV file with a header -> Parquet, partitioned by day, with the types below.

    --input   s3://BUCKET/raw/customer_activity.csv
    --output  s3://BUCKET/optimised/customer_activity/

Runs on AWS Glue 5.0 and on any Spark 3.5. A row that does not fit the types fails the job: it must not end as nulls.
"""

import argparse

from pyspark.sql import SparkSession
from pyspark.sql.functions import to_date

SCHEMA = """
    activity_id BIGINT, customer_id STRING, customer_name STRING, country STRING, activity STRING,
    amount DECIMAL(12, 2), occurred_at TIMESTAMP
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--input", required=True)
    parser.add_argument("--output", required=True)
    # Glue passes arguments of its own besides (--JOB_NAME, --TempDir, ...).
    paths, _ = parser.parse_known_args()

    spark = SparkSession.builder.appName("glue_csv_to_parquet").getOrCreate()
    spark.conf.set("spark.sql.session.timeZone", "UTC")
    activity = (
        spark.read.schema(SCHEMA)
        .option("header", True)
        .option("enforceSchema", False)
        .option("mode", "FAILFAST")
        .option("quote", '"')
        .option("escape", '"')
        .option("timestampFormat", "yyyy-MM-dd HH:mm:ss")
        .csv(paths.input)
    )
    by_day = activity.withColumn("activity_date", to_date("occurred_at")).repartition("activity_date")
    by_day.write.mode("overwrite").partitionBy("activity_date").parquet(paths.output)
    spark.stop()


if __name__ == "__main__":
    main()
