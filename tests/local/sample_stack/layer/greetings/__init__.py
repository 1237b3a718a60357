"""A layer of pure Python."""


class Rude(Exception):
    """Somebody was."""


class Shy(Exception):
    """Ask again."""
