"""metav1.Condition and kstatus: build the next list of conditions from the last one. Pure functions without a clock.

kstatus, as Flux and `kubectl wait` read it: Reconciling or Stalled are present only while True; something that may pass
is Ready=False with Reconciling=True, something that a user must change is Ready=False with Stalled=True.
See also: the controllers decide which conditions they want, `reasons` names why; docs/voucher.md and
docs/redemption.md explain each to people.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from voucher_operator.resources.reasons import Reason

ConditionStatus = Literal["True", "False", "Unknown"]
KStatus = Literal["InProgress", "Failed", "Current"]

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
"""Those that say how the resource stands as a whole; of both kinds."""

MAX_MESSAGE: Final = 1024
"""Characters; longer messages are cut. Below the schema's bound, which is that of metav1.Condition."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition as the operator wants it; `message` may be any text, `merge` makes one bounded line of it."""

    type: str
    status: ConditionStatus
    reason: Reason
    message: str
    observed_generation: int


def condition(kind: str, holds: bool | None, reason: Reason, message: str, *, generation: int) -> Condition:
    """Build one condition; `holds` None means Unknown."""
    status: ConditionStatus = "Unknown" if holds is None else "True" if holds else "False"
    return Condition(kind, status, reason, message, generation)


def ready(reason: Reason, message: str, *, generation: int) -> tuple[Condition, ...]:
    """Build the conditions of a resource for which all that was asked is done."""
    return (condition(READY, True, reason, message, generation=generation),)


def retrying(reason: Reason, message: str, *, generation: int) -> tuple[Condition, ...]:
    """Build the conditions of a resource that waits for what may pass, and is tried again."""
    return (
        condition(READY, False, reason, message, generation=generation),
        condition(RECONCILING, True, reason, message, generation=generation),
    )


def stalled(reason: Reason, message: str, *, generation: int) -> tuple[Condition, ...]:
    """Build the conditions of a resource for which somebody must change something first."""
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
    """Return the whole next list: `wanted` in its order, then what `previous` has of types not `owned`, untouched.

    `lastTransitionTime` is that of `previous` unless `status` moved; then it is `now` (aware), in whole seconds.
    Owned types that are not wanted go, and so do Reconciling and Stalled unless they are True.
    Raises ValueError when `wanted` names a type twice or one that is not owned, or when `now` has no zone.
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
    moved = before is None or before.get("status") != one.status or not before.get("lastTransitionTime")
    return {
        "type": one.type,
        "status": one.status,
        "observedGeneration": one.observed_generation,
        "lastTransitionTime": now if moved or before is None else before["lastTransitionTime"],
        "reason": str(one.reason),
        "message": one_line(one.message),
    }


def one_line(text: str) -> str:
    """Return `text` as one line without control characters, of at most `MAX_MESSAGE` characters."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return line if len(line) <= MAX_MESSAGE else line[: MAX_MESSAGE - 1].rstrip() + "…"


def format_time(moment: datetime) -> str:
    """Write an aware datetime as metav1.Time does: UTC, whole seconds. Raises ValueError when it has no zone."""
    if moment.tzinfo is None:
        raise ValueError("a time without a zone means nothing to another machine")
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def kstatus(body: Mapping[str, Any]) -> KStatus:
    """Read a resource as kstatus does (deletion aside): by generation, Reconciling, Stalled, Ready, in this order."""
    status = body.get("status") or {}
    generation = body["metadata"].get("generation")
    held = {one["type"]: one["status"] for one in status.get("conditions", ())}
    if status.get("observedGeneration", generation) != generation or held.get(RECONCILING) == "True":
        return "InProgress"
    if held.get(STALLED) == "True":
        return "Failed"
    return "Current" if held.get(READY, "True") == "True" else "InProgress"
