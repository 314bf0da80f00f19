"""What a connection pooler costs: `Ledger.redeem` through PgBouncer, against no pooler. `benchmarks` has the method."""

from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.ledger import CALLERS, OurWay
from benchmarks.report import line, ratios, title
from testbed.pgbouncer import Mode, PgBouncer
from testbed.postgres import PostgresServer, Version
from voucher_operator.ledger.session import Pooler

_WAYS: tuple[tuple[str, Mode, Pooler], ...] = (
    ("session mode, setting session", "session", "session"),
    ("session mode, setting auto", "session", "auto"),
    ("transaction mode, setting auto", "transaction", "auto"),
)
Pair = tuple[float, float]
"""Redemptions per second of all callers; the median time of a lone caller in milliseconds."""


def measure(version: Version, rounds: int, seconds: float) -> None:
    """Measure so many rounds, each of them without a pooler and with it in each way, and print them."""
    with PostgresServer(version, fsync=True) as server:
        ours = OurWay(server.database("pooled"), customers=0)
        title(f"pooler: one hot voucher on PostgreSQL {version}, {rounds} rounds of {seconds:g} s each")
        direct, pooled = [], [list[Pair]() for _ in _WAYS]
        for _ in range(rounds):
            direct.append(_run(ours, seconds))
            for found, (_name, mode, setting) in zip(pooled, _WAYS, strict=True):
                with _through(server, ours, mode, setting):
                    found.append(_run(ours, seconds))
        _print(direct, pooled)


def _run(ours: OurWay, seconds: float) -> Pair:
    rate, _ = ours.run(CALLERS, seconds, strangers=True)
    _, alone = ours.run(1, seconds, strangers=True)
    return rate, 1e3 * alone


@contextmanager
def _through(server: PostgresServer, ours: OurWay, mode: Mode, setting: Pooler) -> Iterator[None]:
    direct = ours.url
    with PgBouncer(server, mode) as pooler:
        ours.url, ours.pooler = pooler.url(direct), setting
        yield
    ours.url, ours.pooler = direct, "auto"


def _print(direct: list[Pair], pooled: list[list[Pair]]) -> None:
    line(f"no pooler, {CALLERS} callers, customers yet unknown", [one[0] for one in direct], "/s")
    line("no pooler, a lone caller, median", [one[1] for one in direct], "ms", 2)
    for (name, _, _), found in zip(_WAYS, pooled, strict=True):
        line(f"PgBouncer, {name}: {CALLERS} callers", [one[0] for one in found], "/s")
        line("    to that without", ratios([one[0] for one in found], [one[0] for one in direct]), "times", 2)
        line(f"PgBouncer, {name}: a lone caller", [one[1] for one in found], "ms", 2)
        line("    to that without (less is better)", ratios([o[1] for o in found], [o[1] for o in direct]), "times", 2)
