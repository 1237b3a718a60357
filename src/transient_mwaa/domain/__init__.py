"""The rules, in plain Python: no AWS, no network, and the clock is an argument."""
