"""The command line: `voucher-operator run | migrate | verify | export | balance | release | version`.

The only place that turns exceptions into exit codes and one-line messages. See also: `process.run`, `process.migrate`;
`ledger.admin` has the other commands.
"""

import argparse
import asyncio
import math
import re
import sys
from collections.abc import Sequence

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from voucher_operator import __version__, telemetry
from voucher_operator.ledger.admin.commands import account, release
from voucher_operator.ledger.admin.export import export
from voucher_operator.ledger.admin.reader import STATEMENT_LIMIT
from voucher_operator.ledger.admin.verify import absent_vouchers, ungranted, verify, wrongly_rejected
from voucher_operator.ledger.types import Violation
from voucher_operator.process.migrate import DEFER, migrate_with_retries, seconds
from voucher_operator.resources.errors import OperatorError, ProcessError
from voucher_operator.resources.money import format_amount
from voucher_operator.settings import PREFIX, Settings


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code: 0 success, 1 it failed or found violations, 2 wrong usage."""
    args = _parser().parse_args(argv)
    try:
        settings = Settings()
    except ValidationError as error:
        return _fail("; ".join(_setting_error(line) for line in error.errors()), 2)
    telemetry.configure_logging(settings.log_level)
    try:
        code: int = asyncio.run(args.command(settings, args))
    except (OperatorError, ProcessError) as error:
        return _fail(error.message, 1)
    except (KeyboardInterrupt, BrokenPipeError):
        return 1
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="voucher-operator", description="Vouchers as Kubernetes resources.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, command, text in (
        ("run", _run, "run the operator: reconcile Vouchers and Redemptions with the ledger"),
        ("migrate", _migrate, "migrate the ledger's schema; connect as its owner; safe at any time"),
        ("verify", _verify, "check the ledger's invariants; exit 1 and print the rows that violate one"),
        ("export", _export, "write vouchers, redemptions, ledger entries or purchases as JSON lines or CSV"),
        ("balance", _balance, "print a customer's balance and last ledger entries"),
        ("release", _release, "let another namespace issue the code of a deleted Voucher"),
        ("version", _version, "print the version"),
    ):
        commands.add_parser(name, help=text, description=text).set_defaults(command=command)
    migration = commands.choices["migrate"]
    migration.add_argument(
        "--wait", type=seconds, default=0.0, metavar="SECONDS", help="retry for this time; inf: without limit"
    )
    help_text = (
        "when to exit with code 0 without migrating: if the ledger cannot be reached (absent), or after any error"
    )
    migration.add_argument("--defer", choices=DEFER, default="never", help=help_text)
    exporter = commands.choices["export"]
    exporter.add_argument("what", choices=("vouchers", "redemptions", "entries", "purchases"))
    exporter.add_argument("--format", choices=("jsonl", "csv"), default="jsonl")
    commands.choices["verify"].add_argument(
        "--namespace",
        action="append",
        default=[],
        help="compare also with the Vouchers and Redemptions of this namespace; repeatable",
    )
    for name in ("verify", "export"):
        commands.choices[name].add_argument(
            "--statement-limit",
            type=_seconds,
            default=STATEMENT_LIMIT,
            metavar="SECONDS",
            help="time limit of one statement; default %(default)g, because the Go service waits for it at start-up, "
            "and fails after 10: set a higher limit for a large ledger, at a time when the Go service does not start",
        )
    commands.choices["balance"].add_argument("user", help="the customer's userID")
    commands.choices["release"].add_argument("voucher", type=_voucher, help="NAMESPACE/NAME of the deleted Voucher")
    commands.choices["release"].add_argument(
        "--to", type=_namespace, required=True, metavar="NAMESPACE", help="the namespace that may issue its code"
    )
    return parser


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0.001 <= seconds <= 86_400:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds between 0.001 and 86400")
    return seconds


def _namespace(text: str) -> str:
    if re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", text) is None:
        raise argparse.ArgumentTypeError(f"{text} is not the name of a namespace")
    return text


def _voucher(text: str) -> tuple[str, str]:
    namespace, _, name = text.partition("/")
    if not namespace or not name or "/" in name:
        raise argparse.ArgumentTypeError(f"{text} is not NAMESPACE/NAME")
    return namespace, name


async def _run(settings: Settings, _: argparse.Namespace) -> int:
    # Imported here: the other commands do not need its libraries, and start faster. `_claims` does the same.
    from voucher_operator.process.run import run

    await run(settings)
    return 0


async def _migrate(settings: Settings, args: argparse.Namespace) -> int:
    applied = await migrate_with_retries(settings, wait=args.wait, defer=args.defer)
    if applied is None:
        print("deferred to a later run")
    else:
        print("\n".join(f"applied {name}" for name in applied) or "nothing to do")
    return 0


async def _verify(settings: Settings, args: argparse.Namespace) -> int:
    limit = args.statement_limit
    broken = await verify(settings.conninfo(), statement_limit=limit)
    if args.namespace:
        broken += await _claims(settings.conninfo(), args.namespace, limit)
    for violation in broken:
        print(f"{violation.invariant}: {violation.subject}: {violation.detail}")
    print(f"{len(broken)} rows violate an invariant" if broken else "the ledger is consistent")
    return 1 if broken else 0


async def _claims(conninfo: str, namespaces: Sequence[str], limit: float) -> list[Violation]:
    """Compare what the resources of these namespaces say with the ledger."""
    from voucher_operator.controllers.redemption.resource_claims import redeemed_keys, rejected_requests, voucher_keys

    broken = []
    async for keys in redeemed_keys(namespaces):
        broken += await ungranted(conninfo, keys, statement_limit=limit)
    async for requests in rejected_requests(namespaces):
        broken += await wrongly_rejected(conninfo, requests, statement_limit=limit)
    present = await voucher_keys(namespaces)
    broken += await absent_vouchers(conninfo, namespaces, present, statement_limit=limit)
    return list(dict.fromkeys(broken))


async def _export(settings: Settings, args: argparse.Namespace) -> int:
    await export(settings.conninfo(), args.what, args.format, sys.stdout, statement_limit=args.statement_limit)
    return 0


async def _balance(settings: Settings, args: argparse.Namespace) -> int:
    info, balance, entries = await account(settings.conninfo(), args.user)
    print(f"balance {format_amount(balance, info.currency)} {info.currency}")
    for entry in entries:
        amount = format_amount(entry.amount_minor, info.currency)
        print(f"{entry.created_at:%Y-%m-%d %H:%M:%S} {amount:>14} {entry.reason}")
    return 0


async def _release(settings: Settings, args: argparse.Namespace) -> int:
    namespace, name = args.voucher
    if not await release(settings.conninfo(), namespace, name, args.to):
        return _fail(
            f"Voucher {namespace}/{name} has no code to release: check the name, and delete the Voucher first",
            1,
        )
    print(f"a Voucher in namespace {args.to} can now issue the code of {namespace}/{name}")
    return 0


async def _version(_: Settings, __: argparse.Namespace) -> int:
    print(__version__)
    return 0


def _setting_error(line: ErrorDetails) -> str:
    """Return one line about an invalid setting, with the name of its environment variable."""
    message = line["msg"].removeprefix("Value error, ")
    if not line["loc"]:
        return message
    name = str(line["loc"][0])
    return f"{name if name.isupper() else PREFIX + name.upper()}: {message}"


def _fail(message: str, code: int) -> int:
    print(f"voucher-operator: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
