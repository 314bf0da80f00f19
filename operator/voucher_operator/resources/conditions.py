"""metav1.Condition and kstatus: builds the next list of conditions from the current one. Pure functions, no clock.

kstatus, as Flux and `kubectl wait` read it: Reconciling and Stalled are present only while True; a transient problem is
Ready=False with Reconciling=True, a problem that a user must resolve is Ready=False with Stalled=True.
See also: the controllers choose the conditions; `reasons` has the reasons; docs/voucher.md and docs/redemption.md
explain them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from voucher_operator.resources.reasons import Reason

ConditionStatus = Literal["True", "False", "Unknown"]

READY: Final = "Ready"
RECONCILING: Final = "Reconciling"
STALLED: Final = "Stalled"
REDEEMABLE: Final = "Redeemable"
REDEEMED: Final = "Redeemed"
ORDER_PLACED: Final = "OrderPlaced"
PAYMENT_SETTLED: Final = "PaymentSettled"
ORGANIZATION_READY: Final = "OrganizationReady"

VOUCHER_CONDITIONS: Final = frozenset({READY, REDEEMABLE, RECONCILING, STALLED})
"""The condition types that the operator writes on a Voucher."""
REDEMPTION_CONDITIONS: Final = frozenset(
    {READY, REDEEMED, ORDER_PLACED, PAYMENT_SETTLED, ORGANIZATION_READY, RECONCILING, STALLED}
)
"""The condition types that the operator writes on a Redemption."""

OVERALL_CONDITIONS: Final = frozenset({READY, RECONCILING, STALLED})
"""The condition types about the whole resource; of both kinds."""

MAX_MESSAGE: Final = 1024
"""Maximum number of characters; longer messages are cut. It is below the limit of metav1.Condition."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition to be set; `message` may be any text, `merge` cuts it to one line of limited length."""

    type: str
    status: ConditionStatus
    reason: Reason
    message: str
    observed_generation: int


def condition(kind: str, value: bool | None, reason: Reason, message: str, *, generation: int) -> Condition:
    """Build one condition; `value` None means Unknown."""
    status: ConditionStatus = "Unknown" if value is None else "True" if value else "False"
    return Condition(kind, status, reason, message, generation)


def ready(reason: Reason, message: str, *, generation: int) -> tuple[Condition, ...]:
    """Build the conditions of a resource whose spec is fulfilled."""
    return (condition(READY, True, reason, message, generation=generation),)


def retrying(reason: Reason, message: str, *, generation: int) -> tuple[Condition, ...]:
    """Build the conditions of a resource with a transient problem, which is retried."""
    return (
        condition(READY, False, reason, message, generation=generation),
        condition(RECONCILING, True, reason, message, generation=generation),
    )


def stalled(reason: Reason, message: str, *, generation: int) -> tuple[Condition, ...]:
    """Build the conditions of a resource with a problem that somebody must resolve."""
    return (
        condition(READY, False, reason, message, generation=generation),
        condition(STALLED, True, reason, message, generation=generation),
    )


def reason_in(previous: Iterable[Mapping[str, Any]], kind: str) -> str | None:
    """Return the reason of the condition of this type; None when there is none."""
    return next((one.get("reason") for one in previous if one.get("type") == kind), None)


def merge(
    previous: Sequence[Mapping[str, Any]], wanted: Iterable[Condition], *, owned: frozenset[str], now: datetime
) -> list[dict[str, Any]]:
    """Return the complete next list: `wanted` in its order, then the conditions of `previous` that are not `owned`.

    `lastTransitionTime` is that of `previous` unless `status` changes; then it is `now` (aware), in whole seconds.
    Owned types that are not wanted are removed, and so are Reconciling and Stalled unless they are True.
    Raises ValueError when `wanted` has a type twice or one that is not owned, or when `now` has no time zone.
    """
    wanted = tuple(wanted)
    before = {str(one.get("type")): one for one in previous}
    types = [one.type for one in wanted]
    if len(set(types)) != len(types) or not owned.issuperset(types):
        raise ValueError(f"conditions must be owned and named once: {types}")
    time = format_time(now)
    mine = [_entry(one, before.get(one.type), time) for one in wanted if _is_shown(one)]
    return mine + [dict(one) for one in previous if one.get("type") not in owned]


def _is_shown(one: Condition) -> bool:
    return one.status == "True" or one.type not in (RECONCILING, STALLED)


def _entry(one: Condition, before: Mapping[str, Any] | None, now: str) -> dict[str, Any]:
    changed = before is None or before.get("status") != one.status or not before.get("lastTransitionTime")
    return {
        "type": one.type,
        "status": one.status,
        "observedGeneration": one.observed_generation,
        "lastTransitionTime": now if changed or before is None else before["lastTransitionTime"],
        "reason": str(one.reason),
        "message": one_line(one.message),
    }


def one_line(text: str) -> str:
    """Return `text` as one line without control characters, of at most `MAX_MESSAGE` characters."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return line if len(line) <= MAX_MESSAGE else line[: MAX_MESSAGE - 1].rstrip() + "…"


def format_time(moment: datetime) -> str:
    """Format an aware datetime as metav1.Time: UTC, whole seconds. Raises ValueError when it has no time zone."""
    if moment.tzinfo is None:
        raise ValueError("the time has no time zone")
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: str) -> datetime | None:
    """Read a metav1.Time from a status; None for what is no time to Python, though the API server accepts it.

    Only the operator writes them, but others may have the right to.
    """
    try:
        moment = datetime.fromisoformat(text.upper())
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None
