"""Puts our DAGs into an environment that is there already. Runs where the repository is, never in a function."""
