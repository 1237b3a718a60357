"""AWS Glue job: activity as Parquet -> one row per day, country and kind of activity.

    --input   s3://BUCKET/optimised/customer_activity/
    --output  s3://BUCKET/conformed/customer_activity/

Runs on AWS Glue 5.0 and on any Spark 3.5.
"""

import argparse

from pyspark.sql import SparkSession
from pyspark.sql.functions import count, countDistinct, sum  # noqa: A004  Spark's own names read best here


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--input", required=True)
    parser.add_argument("--output", required=True)
    # Glue passes arguments of its own besides (--JOB_NAME, --TempDir, ...).
    paths, _ = parser.parse_known_args()

    spark = SparkSession.builder.appName("glue_transform").getOrCreate()
    spark.conf.set("spark.sql.session.timeZone", "UTC")
    daily = (
        spark.read.parquet(paths.input)
        .groupBy("activity_date", "country", "activity")
        .agg(
            count("*").alias("activities"),
            countDistinct("customer_id").alias("customers"),
            sum("amount").alias("amount"),
        )
    )
    # A few hundred rows: one file.
    daily.coalesce(1).write.mode("overwrite").parquet(paths.output)
    spark.stop()


if __name__ == "__main__":
    main()
