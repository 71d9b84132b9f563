"""demo (being written)."""


def demo() -> None:
    """Train, steal, judge."""
