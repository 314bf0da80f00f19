"""One batch of purchases: redeem, place the orders and hold the credit, in one transaction.

An order may be impossible: the credit does not cover it and no card can pay the rest, or the credit may not be spent
for this tenant. Then nothing of it may stay, not even the redemption that the same transaction has made. So the whole
batch is rolled back and run again with that refusal given: the refusal is recorded and consumes nothing, and the other
requests of the batch are judged as if it were not in it.

See also: `ledger.batch` makes the batches, with no customer twice; `redeem` redeems without an order; `purchases` has
the steps after it; `purchase_place.sql` decides.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

import psycopg
from psycopg.rows import class_row, dict_row

from voucher_operator.ledger.arrays import text_array
from voucher_operator.ledger.connector import Connection
from voucher_operator.ledger.purchase.rows import purchase_from
from voucher_operator.ledger.purchase.types import Purchase, PurchaseRequest, PurchaseResult
from voucher_operator.ledger.redemption.redeem import NO_LIMIT, REASONS, parameters, result
from voucher_operator.ledger.statements import statement
from voucher_operator.ledger.types import AttemptLimit, Outcome, RedeemRequest, RedeemResult
from voucher_operator.resources.codes import normal_code
from voucher_operator.resources.errors import LedgerUnavailableError, OperatorError
from voucher_operator.resources.keys import Key
from voucher_operator.resources.reasons import Reason

MAX_PURCHASES: Final = 100
"""Orders in one batch: the rows of their customers are locked until it commits."""

_LOCK_PROMO: Final = statement("lock_promo")
_REDEEM: Final = statement("redeem")
_ADD_CUSTOMERS: Final = statement("purchase_add_customers")
_LOCK_CUSTOMERS: Final = statement("purchase_lock_customers")
_LOCK_ACCOUNTS: Final = statement("account_lock")
_PLACE: Final = statement("purchase_place")
_READ: Final = statement("purchase_read")


@dataclass(frozen=True, slots=True)
class _Verdict:
    """A row of `purchase_place.sql`: placed, known, refused, none (its code was refused) or impossible.

    `n` is the request's number, from 1. `short_minor` is the total less the balance, also when the code was refused;
    None when the order was not judged. `mismatched`: the customer belongs to another tenant, and credit may not be
    spent for this one.
    """

    n: int
    outcome: str
    reason: str | None
    decided_at: datetime
    replayed: bool
    short_minor: int | None
    mismatched: bool


@dataclass(frozen=True, slots=True)
class _Found:
    """The results of one attempt: redemptions and verdicts by key, rows of purchases."""

    redeemed: Mapping[Key, RedeemResult | OperatorError]
    verdicts: Mapping[Key, _Verdict]
    rows: Sequence[Mapping[str, Any]]

    def impossible(self, requests: Sequence[PurchaseRequest]) -> dict[Key, str]:
        """Return the refusals to give with the next attempt; if there are any, this one is rolled back.

        The use of a code that an impossible request gives up goes to the next request of this code, which may be
        impossible as well, and so on through the batch. So every request that would be impossible even with the code's
        credit is refused in the same attempt.
        """
        found = {key: v.reason for key, v in self.verdicts.items() if v.outcome == "impossible" and v.reason}
        freed = {normal_code(r.code): self._credit(r.key) for r in requests if r.code and r.key in found}
        for request in requests:
            credit = freed.get(normal_code(request.code))
            if credit is not None and (reason := self._refusal_with(request, credit)) is not None:
                found[request.key] = reason.value
        return found

    def _credit(self, key: Key) -> int | None:
        result = self.redeemed.get(key)
        if not isinstance(result, RedeemResult) or result.replayed or result.refusal is not None:
            return None
        return result.credit_minor

    def _refusal_with(self, request: PurchaseRequest, credit: int) -> Reason | None:
        """Return why an order that failed only at the code's cap is refused with the code's credit, too; else None."""
        result, verdict = self.redeemed.get(request.key), self.verdicts[request.key]
        if not isinstance(result, RedeemResult) or result.replayed or verdict.short_minor is None:
            return None
        if result.refusal is not Reason.REDEMPTION_LIMIT_REACHED:
            return None
        return request.refusal(request.total_minor - verdict.short_minor + credit, mismatched=verdict.mismatched)


async def purchase_batch(
    conn: Connection, requests: Sequence[PurchaseRequest], limit: AttemptLimit = NO_LIMIT
) -> list[PurchaseResult | OperatorError]:
    """Place `requests`, no two of which have the same key or customer; one result each, in their order.

    A result that a newer version gave to a key before is a LedgerUnavailableError in its place. Raises psycopg's
    errors; nothing is written then.
    """
    refusals: dict[Key, str] = {}
    while True:
        found = await _attempt(conn, requests, refusals, limit)
        if not (impossible := found.impossible(requests)):
            return list(_results(requests, found))
        refusals |= impossible


async def _attempt(
    conn: Connection, requests: Sequence[PurchaseRequest], refusals: Mapping[Key, str], limit: AttemptLimit
) -> _Found:
    """Run the batch; it is committed unless something in it turns out to be impossible."""
    trying = [r.redeem for r in requests if r.key not in refusals]
    coded = [r for r in trying if r.code]
    # Also the codes of those whose refusal is given: another replica that redeems for the same key has locked its code.
    codes = {r.code for r in requests if r.code}
    redeemed = conn.cursor(binary=True)
    placed = conn.cursor(binary=True, row_factory=class_row(_Verdict))
    read = conn.cursor(binary=True, row_factory=dict_row)
    async with conn.transaction() as transaction:
        async with conn.pipeline():
            users = {"users": text_array({r.user_id for r in trying})}
            if codes:
                await conn.execute(_LOCK_PROMO, {"codes": text_array(codes)}, prepare=True)
            await conn.execute(_ADD_CUSTOMERS, _new_customers(trying), prepare=True)
            # Before redeem.sql, which locks accounts, too. A customer that it inserts is not visible to others yet.
            await conn.execute(_LOCK_CUSTOMERS, users, prepare=True)
            await conn.execute(_LOCK_ACCOUNTS, users, prepare=True)
            if coded:
                await redeemed.execute(_REDEEM, parameters(coded, limit), prepare=True)
            await placed.execute(_PLACE, _parameters(requests, refusals), prepare=True)
            await read.execute(_READ, {"keys": text_array([r.redeem.key for r in requests])}, prepare=True)
        answers = await redeemed.fetchall() if coded else []
        found = _Found(
            {coded[n - 1].key: result(coded[n - 1].key, *row) for n, *row in answers},
            {requests[verdict.n - 1].key: verdict for verdict in await placed.fetchall()},
            await read.fetchall(),
        )
        if found.impossible(requests):
            raise psycopg.Rollback(transaction)
    return found


def _new_customers(requests: Iterable[RedeemRequest]) -> dict[str, str]:
    """Return the customers that need a row although no code is redeemed for them."""
    some = [r for r in requests if not r.code]
    return {
        "users": text_array([r.user_id for r in some]),
        "tenants": text_array([r.tenant_id for r in some]),
        "emails": text_array([r.email for r in some]),
    }


def _parameters(requests: Sequence[PurchaseRequest], refusals: Mapping[Key, str]) -> dict[str, str]:
    redeems = [r.redeem for r in requests]
    return {
        "keys": text_array([r.key for r in redeems]),
        "hashes": text_array([r.request_hash for r in redeems]),
        "uids": text_array([r.uid for r in redeems]),
        "coded": text_array(["t" if r.code else "f" for r in redeems]),
        "users": text_array([r.user_id for r in redeems]),
        "tenants": text_array([r.tenant_id for r in redeems]),
        "emails": text_array([r.email for r in redeems]),
        "plans": text_array([r.plan_id for r in requests]),
        "apps": text_array([json.dumps(r.apps) for r in requests]),
        "addons": text_array([json.dumps(r.addons) for r in requests]),
        "lines": text_array([json.dumps([asdict(line) for line in r.lines]) for r in requests]),
        "subdomains": text_array([r.subdomain for r in requests]),
        "totals": text_array([str(r.total_minor) for r in requests]),
        "payable": text_array(["t" if r.payable else "f" for r in requests]),
        "steps": text_array([str(r.step_minor) for r in requests]),
        "minimums": text_array([str(r.minimum_minor) for r in requests]),
        "deadlines": text_array([str(r.deadline_seconds) for r in requests]),
        "any_tenant": text_array(["t" if r.any_tenant else "f" for r in requests]),
        "refusals": text_array([refusals.get(r.key, "") for r in redeems]),
    }


def _results(requests: Sequence[PurchaseRequest], found: _Found) -> Iterator[PurchaseResult | OperatorError]:
    bought = {row["key"]: row for row in found.rows}
    for request in requests:
        key = request.redeem.key
        try:
            purchase = purchase_from(bought[key]) if key in bought else None
        except LedgerUnavailableError as error:
            yield error
        else:
            yield _result(key, found.verdicts[key], found.redeemed.get(key), purchase)


def _result(
    key: Key, verdict: _Verdict, redeemed: RedeemResult | OperatorError | None, purchase: Purchase | None
) -> PurchaseResult | OperatorError:
    if isinstance(redeemed, OperatorError):
        return redeemed
    if verdict.outcome in ("placed", "known"):
        return PurchaseResult(key, verdict.decided_at, purchase, redeemed, replayed=verdict.replayed)
    if verdict.outcome == "none" and redeemed is not None and redeemed.outcome is Outcome.REFUSED:
        return PurchaseResult(
            key,
            redeemed.decided_at,
            refusal=redeemed.refusal,
            replayed=redeemed.replayed,
            retry_at=redeemed.retry_at,
        )
    if verdict.outcome == "refused" and verdict.reason in REASONS:
        return PurchaseResult(key, verdict.decided_at, refusal=REASONS[verdict.reason], replayed=verdict.replayed)
    return LedgerUnavailableError("A newer version of the operator has answered this Redemption: upgrade this one.")
