"""Values of the command line: text to numbers and shapes, or argparse's error that says what they must be."""

from __future__ import annotations

import argparse


def natural(text: str) -> int:
    """A whole number of at least 0."""
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 0, not {text!r}")
    return int(text)


def positive(text: str) -> int:
    """A whole number of at least 1."""
    if not natural(text):
        raise argparse.ArgumentTypeError("must be at least 1")
    return int(text)


def not_negative(text: str) -> float:
    """A finite number of at least 0."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number of at least 0, not {text!r}")
    return number


def shape(text: str) -> tuple[int, ...]:
    """Sizes between commas or x, each at least 1."""
    parts = text.replace("x", ",").split(",")
    if not all(part.isdigit() and int(part) for part in parts):
        raise argparse.ArgumentTypeError(f"must be positive numbers like 1,3,224,224, not {text!r}")
    return tuple(map(int, parts))
