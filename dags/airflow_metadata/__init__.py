"""Airflow's metadata, out of the database and back into it: the library of db_export_dag and db_restore_dag.

It runs on Airflow's workers, by itself: nothing here imports the core of Transient MWAA. What both sides must agree on
is the manifest (manifest.py).

tables.py    what happens to each table, and why some are left out
database.py  PostgreSQL through ADBC, and what its catalogue says

export.py    one consistent snapshot, as Parquet in S3, with sums that the database itself computed
  moment.py    the snapshot, and who was writing when it was taken
  pieces.py    tables cut into files of bounded size
  sums.py      what the database says of the rows of a file
  files.py     rows to Parquet, by parallel readers (packed.py: many columns in one field)
  history.py   changed rows for the lake, in the columns of lake.py

restore.py   the snapshot back into a new environment that is alive, in one transaction
  ids.py       blocks of ids
  rows.py      history on its way into a table (in_flight.py: what was under way; wire.py: types of COPY)
  merge.py     rows by their natural keys
  dags.py      DAGs, and their versions
"""
