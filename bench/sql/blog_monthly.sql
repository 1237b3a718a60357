-- The monthly query of the blog post, for Athena, over its table of CSV files, in which all is text.
SELECT compared.*, avg_duration - prev_month_avg_duration AS var_duration
FROM (
  SELECT
    monthly.*,
    lag(avg_duration, 1, avg_duration) OVER (PARTITION BY dag_id ORDER BY year_month) AS prev_month_avg_duration
  FROM (
    SELECT
      dag_id, year_month, sum(counter) AS num_executions, sum(success_ind) AS num_success,
      sum(failed_ind) AS num_failed, (CAST(sum(success_ind) AS double) / sum(counter)) * 100 AS success_rate,
      min(duration) AS min_duration, max(duration) AS max_duration, avg(duration) AS avg_duration
    FROM (
      SELECT
        dag_id, 1 AS counter,
        CASE WHEN state = 'success' THEN 1 ELSE 0 END AS success_ind,
        CASE WHEN state = 'failed' THEN 1 ELSE 0 END AS failed_ind,
        date_parse(end_date, '%Y-%m-%d %H:%i:%s.%f+00:00')
          - date_parse(start_date, '%Y-%m-%d %H:%i:%s.%f+00:00') AS duration,
        date_format(date_parse(start_date, '%Y-%m-%d %H:%i:%s.%f+00:00'), '%Y-%m') AS year_month
      FROM airflow_metadata_dagrun
      WHERE state <> 'running'
    ) AS counters
    GROUP BY dag_id, year_month
  ) AS monthly
) AS compared
ORDER BY dag_id, year_month
