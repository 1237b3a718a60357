"""The edge: each class talks to one service and is made by its `from_env()`."""
