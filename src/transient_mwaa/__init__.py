"""Puts an Amazon MWAA environment to sleep and wakes it with nothing lost."""
