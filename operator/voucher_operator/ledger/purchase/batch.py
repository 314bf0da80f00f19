"""One batch of purchases: redeem, place the orders and hold the credit, in one transaction.

Where the credit does not cover an order and nobody can pay the rest, or where it is not the tenant's to spend, nothing
of it may stay, not even the redemption that was made a moment ago. So the whole batch is rolled back and tried again
with that refusal given: it is recorded, consumes nothing, and its neighbours are judged as if it had not been there.

See also: `batch` makes the batches, with no customer twice; `redeem` redeems without an order; `purchases` does what
comes after; `sql/purchase_place.sql` decides.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

import psycopg

from voucher_operator.ledger.pool import Connection
from voucher_operator.ledger.purchase.rows import purchase_from
from voucher_operator.ledger.purchase.types import Purchase, PurchaseRequest, PurchaseResult
from voucher_operator.ledger.redemption.redeem import NO_LIMIT, REASONS, parameters, result, text_array
from voucher_operator.ledger.statements import statement
from voucher_operator.ledger.types import AttemptLimit, Outcome, RedeemRequest, RedeemResult
from voucher_operator.resources.codes import normal_code
from voucher_operator.resources.errors import LedgerUnavailableError, OperatorError
from voucher_operator.resources.keys import Key
from voucher_operator.resources.reasons import Reason

MAX_PURCHASES: Final = 100
"""Orders in one batch: the customers' rows are held meanwhile."""

_LOCK_PROMO: Final = statement("lock_promo")
_REDEEM: Final = statement("redeem")
_CUSTOMERS: Final = statement("purchase_add_customers")
_LOCK_CUSTOMERS: Final = statement("purchase_lock_customers")
_LOCK_ACCOUNTS: Final = statement("account_lock")
_PLACE: Final = statement("purchase_place")
_READ: Final = statement("purchase_read")


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What `purchase_place.sql` says: placed, known, refused, none (its code was refused) or impossible.

    `short_minor` is what the total exceeds the balance by, where it was asked: of a code that was refused, too.
    `mismatched`: the customer's tenant is another one, and credit may not be spent for it.
    """

    outcome: str
    reason: str | None
    decided_at: datetime
    replayed: bool
    short_minor: int | None
    mismatched: bool


@dataclass(frozen=True, slots=True)
class _Found:
    """All that one attempt was answered: redemptions and verdicts by key, rows of purchases."""

    redeemed: Mapping[Key, RedeemResult | OperatorError]
    verdicts: Mapping[Key, _Verdict]
    rows: Sequence[tuple[Any, ...]]

    def impossible(self, requests: Sequence[PurchaseRequest]) -> dict[Key, str]:
        """Refusals that have to be given with the next attempt: then nothing of this one may stay.

        A use of a code that comes free is the next one's, who may be impossible as well, and so on through the batch.
        So whomever the code would not help is refused now, as if all of them had come first.
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
        """Why an order that had only the code's cap against it is refused even with the code's credit, if it is."""
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

    What a newer version answered to a key before is a LedgerUnavailableError in its place. Raises psycopg's errors;
    nothing is written then.
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
    # Also the codes of those whose refusal is given: another replica that redeems for the same key holds its code.
    codes = {r.code for r in requests if r.code}
    redeemed, placed, read = (conn.cursor(binary=True) for _ in range(3))
    async with conn.transaction() as transaction:
        async with conn.pipeline():
            users = {"users": text_array({r.user_id for r in trying})}
            if codes:
                await conn.execute(_LOCK_PROMO, {"codes": text_array(codes)}, prepare=True)
            await conn.execute(_CUSTOMERS, _newcomers(trying), prepare=True)
            # Before redeem.sql, which locks accounts, too. Whom that makes a customer nobody else sees yet.
            await conn.execute(_LOCK_CUSTOMERS, users, prepare=True)
            await conn.execute(_LOCK_ACCOUNTS, users, prepare=True)
            if coded:
                await redeemed.execute(_REDEEM, parameters(coded, limit), prepare=True)
            await placed.execute(_PLACE, _parameters(requests, refusals), prepare=True)
            await read.execute(_READ, {"keys": text_array([r.redeem.key for r in requests])}, prepare=True)
        answers = await redeemed.fetchall() if coded else []
        found = _Found(
            {coded[n - 1].key: result(coded[n - 1].key, *row) for n, *row in answers},
            {requests[n - 1].redeem.key: _Verdict(*row) for n, *row in await placed.fetchall()},
            await read.fetchall(),
        )
        if found.impossible(requests):
            raise psycopg.Rollback(transaction)
    return found


def _newcomers(requests: Iterable[RedeemRequest]) -> dict[str, str]:
    """Those who need a row although no code is redeemed for them."""
    some = [r for r in requests if not r.code]
    return {
        "users": text_array([r.user_id for r in some]),
        "tenants": text_array([r.tenant_id for r in some]),
        "emails": text_array([r.email for r in some]),
    }


def _parameters(requests: Sequence[PurchaseRequest], refusals: Mapping[Key, str]) -> dict[str, str]:
    asked = [r.redeem for r in requests]
    return {
        "keys": text_array([r.key for r in asked]),
        "hashes": text_array([r.request_hash for r in asked]),
        "uids": text_array([r.uid for r in asked]),
        "coded": text_array(["t" if r.code else "f" for r in asked]),
        "users": text_array([r.user_id for r in asked]),
        "tenants": text_array([r.tenant_id for r in asked]),
        "emails": text_array([r.email for r in asked]),
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
        "refusals": text_array([refusals.get(r.key, "") for r in asked]),
    }


def _results(requests: Sequence[PurchaseRequest], found: _Found) -> Iterator[PurchaseResult | OperatorError]:
    bought = {row[0]: row for row in found.rows}
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
