"""How long, and from which seed: `make stress ARGS="--stress-seconds=600 --stress-seed=1"`."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of these tests alone."""
    parser.addoption("--stress-seconds", type=float, default=30.0, help="how long the mixed load lasts, per version")
    parser.addoption("--stress-seed", type=int, default=None, help="where its choices start; random unless given")
