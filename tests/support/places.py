"""Where the tests find the code that they test."""

from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
