"""`transient-mwaa report`: one HTML file about what is in the lake and in the ledger."""
