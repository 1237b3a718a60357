"""Airflow's metadata, out of the database and back into it: the library of db_export_dag and db_restore_dag.

It runs on Airflow 2.10 and 2.11 workers, by itself: nothing here imports the core of Transient MWAA. What both sides
must agree on is the manifest (manifest.py).

export.py   one consistent snapshot, as Parquet in S3, with sums that the database itself computed
restore.py  the snapshot back into a new environment that is alive, in one transaction
tables.py   what happens to each table, and why some are left out
"""
