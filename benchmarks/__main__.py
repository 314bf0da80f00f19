"""The command line of the benchmarks; `benchmarks` says what is measured."""

import argparse
import sys

from benchmarks import ledger, pooler, redemptions, size, vouchers
from benchmarks.report import machine
from testbed.processes import TestbedError

_ALL = ("ledger", "pooler", "redemptions", "size", "vouchers")
_ROUNDS, _QUICK_ROUNDS = 5, 2


def main() -> int:
    """Run what was asked for; returns an exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks", description="Ratios of one run, on real parts.")
    parser.add_argument("what", nargs="*", choices=[[], *_ALL], help="all, unless named")
    parser.add_argument("--quick", action="store_true", help="shorter and fewer rounds, noisier")
    parser.add_argument("--rounds", type=int, help="pairs of measurements")
    parser.add_argument("--postgres", type=int, choices=[16, 18], default=18, help="version of the server")
    args = parser.parse_args()
    what = args.what or _ALL
    rounds = args.rounds or (_QUICK_ROUNDS if args.quick else _ROUNDS)
    print(machine(), flush=True)
    try:
        if "ledger" in what:
            ledger.measure(args.postgres, rounds, seconds=1.0 if args.quick else 3.0)
        if "pooler" in what:
            pooler.measure(args.postgres, min(rounds, 3), seconds=1.0 if args.quick else 3.0)
        if "redemptions" in what:
            redemptions.measure(args.postgres, rounds, count=500 if args.quick else 2000)
        if "size" in what:
            size.measure(args.postgres, min(rounds, 3), redemptions=50_000 if args.quick else 1_000_000)
        if "vouchers" in what:
            vouchers.measure(args.postgres, count=2_000 if args.quick else 20_000)
    except TestbedError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
