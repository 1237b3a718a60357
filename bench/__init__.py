"""How fast export and restore are, beside the database's own COPY and beside what people use today: `make bench`."""
