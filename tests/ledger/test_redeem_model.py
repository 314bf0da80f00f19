"""The redeem statement against a model in Python: both decide every request of every batch in the same way."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from testbed.postgres import Database
from tests.ledger.helpers import ON_POSTGRESQL_16, in_one_batch, open_ledger, redeem_outcome
from voucher_operator.ledger.admin.verify import verify
from voucher_operator.ledger.types import AttemptLimit, RedeemRequest
from voucher_operator.resources.keys import Key

pytestmark = ON_POSTGRESQL_16

CODES = ("OPEN", "CAP-1", "CAP-2", "OFF", "GONE", "NONE", "summer")
USERS = ("ann", "ben", "cat")
LIMIT = AttemptLimit(3, 3600)


Customer = tuple[str, str | None]
"""A user in a namespace."""


@dataclass
class Model:
    """The rules of a redemption, one request after the other."""

    room: dict[str, int] = field(default_factory=lambda: {"CAP-1": 1, "CAP-2": 2})
    used: set[tuple[str, str]] = field(default_factory=set)
    answers: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    """key -> request hash, uid, answer"""
    attempts: dict[tuple[str, str], Customer] = field(default_factory=dict)
    """key and uid of each request with a wrong code -> its customer; a uid has only one, so the first one counts"""

    def redeem_batch(self, batch: list[RedeemRequest]) -> list[str]:
        before = dict(self.attempts)
        new: Counter[Customer] = Counter()
        return [self.redeem(request, before, new) for request in batch]

    def redeem(self, request: RedeemRequest, before: dict[tuple[str, str], Customer], new: Counter[Customer]) -> str:
        if known := self.answers.get(request.key):
            request_hash, uid, answer = known
            if answer == "redeemed":
                return answer if request_hash == request.request_hash else "IdempotencyConflict"
            if uid == request.uid:
                return answer
        own, code, user = (str(request.key), request.uid), request.code.strip().upper(), request.user_id
        customer = (user, request.key.namespace)
        earlier = sum(one == customer for attempt, one in before.items() if attempt != own)
        limited = bool(code) and earlier + new[customer] >= LIMIT.attempts
        new[customer] += code in ("GONE", "NONE") and own not in before
        if limited:
            return "TooManyAttempts"
        answer = self.judge(code, user)
        if code and answer == "VoucherNotFound":
            self.attempts.setdefault(own, customer)
        if not (request.provisional and answer == "VoucherNotFound"):
            self.answers[request.key] = (request.request_hash, request.uid, answer)
        return answer

    def judge(self, code: str, user: str) -> str:
        if code in ("", "GONE", "NONE"):
            return "VoucherNotFound"
        if code == "OFF":
            return "VoucherInactive"
        if (user, code) in self.used:
            return "AlreadyRedeemed"
        if self.room.get(code, 1) == 0:
            return "RedemptionLimitReached"
        if code in self.room:
            self.room[code] -= 1
        self.used.add((user, code))
        return "redeemed"


spellings = st.sampled_from([str, str.lower, str.title, "  {}\n".format, "\t{}".format])
requests = st.builds(
    lambda namespace, key, spec, uid, code, spell, user, provisional: RedeemRequest(
        Key(f"{namespace}/{key}"), spec, uid, spell(code), user, "tenant", "someone@example.com", provisional
    ),
    st.sampled_from(("billing", "billing", "sales")),
    st.integers(0, 9),
    st.sampled_from("ab"),
    st.sampled_from("xy"),
    st.sampled_from((*CODES, " ")),
    spellings,
    st.sampled_from(USERS),
    st.booleans(),
)
batches = st.lists(st.lists(requests, min_size=1, max_size=12, unique_by=lambda r: r.key), min_size=1, max_size=4)

RESET = """
TRUNCATE promo_codes, promo_redemptions, credit_ledger, customers, vouchers.redemption, vouchers.account CASCADE;
TRUNCATE vouchers.attempt;
INSERT INTO promo_codes (code, credit_omr, max_redemptions, active, deleted_at) VALUES
    ('OPEN', 1, 0, true, NULL), ('CAP-1', 2, 1, true, NULL), ('CAP-2', 3, 2, true, NULL), ('OFF', 4, 0, false, NULL),
    ('GONE', 5, 0, true, now()), (' summer', 6, 0, true, NULL), (' ', 7, 0, true, NULL);
"""


@pytest.fixture
def loop() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


async def check(database: Database, sequence: list[list[RedeemRequest]]) -> None:
    model = Model()
    async with open_ledger(database.runtime_url) as ledger:
        for batch in sequence:
            expected = model.redeem_batch(batch)
            assert [redeem_outcome(answer) for answer in await in_one_batch(ledger, batch, LIMIT)] == expected
    assert await verify(database.admin_url) == []


def test_statement_agrees_with_the_model(loop: asyncio.Runner, database: Database) -> None:
    @settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(batches)
    def agrees(sequence: list[list[RedeemRequest]]) -> None:
        with psycopg.connect(database.admin_url, autocommit=True) as admin:
            admin.execute(RESET.encode())
        loop.run(check(database, sequence))

    agrees()
