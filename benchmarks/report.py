"""Medians, and what a reader must know of the machine. See also: `ledger` and `redemptions` print through it."""

import os
import platform
from collections.abc import Sequence
from statistics import median


def machine() -> str:
    """Return one line: processors that this process may use, how busy they are, Python."""
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores, load {os.getloadavg()[0]:.1f} at the start, Python {platform.python_version()}"


def title(text: str) -> None:
    """Begin a section."""
    print(f"\n{text}", flush=True)


def line(name: str, values: Sequence[float], unit: str, digits: int = 0) -> None:
    """Print a median with the lowest and the highest of its rounds."""
    shown = [f"{value:,.{digits}f}" for value in (median(values), min(values), max(values))]
    print(f"  {name:<58} {shown[0]:>9} {unit:<12} ({shown[1]} to {shown[2]})", flush=True)


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Divide round by round."""
    return [one / other for one, other in zip(ours, theirs, strict=True)]
