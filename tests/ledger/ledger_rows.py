"""A small sound ledger, written in SQL, for the tests of the commands that read one: `verify` and `export`.

One code of ours with minor units (redeemed, undone, refused), one from a Secret, one of the Go service's in its own
spelling, a spend.
"""

from uuid import UUID

from psycopg import AsyncConnection

from testbed.postgres import Database
from tests.ledger.go_service import GoService

FIRST = UUID("00000000-0000-4000-8000-000000000001")
SECOND = UUID("00000000-0000-4000-8000-000000000002")
SECRET = "HUSH-HUSH-1"

_ROWS = f"""
INSERT INTO customers (id, user_id, tenant_id, email) VALUES
    ('{FIRST}', '=first', 'shop', 'first@example.com'), ('{SECOND}', 'second', 'shop', 'second@example.com');

INSERT INTO promo_codes (code, credit_omr, credit_minor, description, max_redemptions, created_at) VALUES
    ('OURS', 25, 25500, '+1 "launch", für alle', 5, '2026-01-01 00:00:00.5+00'),
    ('{SECRET}', 1, 1250, 'quiet', 0, '2026-01-02 00:00:00+00');

INSERT INTO vouchers.terms (code, owner_uid, owner_namespace, owner_name, owner_created_at, generation, from_secret,
                            credit_minor, description, max_redemptions, valid_until) VALUES
    ('OURS', 'uid-1', 'billing', 'ours', now(), 1, false, 25500, '+1 "launch", für alle', 5, '2027-01-01 04:00:00+04'),
    ('{SECRET}', 'uid-2', 'billing', 'quiet', now(), 1, true, 1250, 'quiet', 0, NULL);

INSERT INTO credit_ledger (id, customer_id, amount_omr, amount_minor, reason, created_at) VALUES
    ('00000000-0000-4000-8000-00000000000a', '{FIRST}', 25, 25500, 'promo:OURS', '2026-02-01 00:00:00+00'),
    ('00000000-0000-4000-8000-00000000000b', '{FIRST}', 1, 1250, 'promo:{SECRET}', '2026-02-02 00:00:00+00'),
    ('00000000-0000-4000-8000-00000000000c', '{SECOND}', 25, 25500, 'promo:OURS', '2026-02-03 00:00:00+00'),
    ('00000000-0000-4000-8000-00000000000d', '{SECOND}', -25, -25500, 'promo:OURS', '2026-02-04 00:00:00+00');

INSERT INTO promo_redemptions (customer_id, code) VALUES ('{FIRST}', 'OURS'), ('{FIRST}', '{SECRET}');

INSERT INTO vouchers.redemption (key, request_hash, uid, outcome, reason, code, customer_id, user_id, credit_minor,
                                 grant_entry_id, reversal_entry_id, decided_at, undone_at) VALUES
    ('shop/one', 'h', 'u1', 'redeemed', NULL, 'OURS', '{FIRST}', '=first', 25500,
     '00000000-0000-4000-8000-00000000000a', NULL, '2026-02-01 00:00:00+00', NULL),
    ('shop/two', 'h', 'u2', 'redeemed', NULL, '{SECRET}', '{FIRST}', '=first', 1250,
     '00000000-0000-4000-8000-00000000000b', NULL, '2026-02-02 00:00:00+00', NULL),
    ('shop/three', 'h', 'u3', 'undone', NULL, 'OURS', '{SECOND}', 'second', 25500,
     '00000000-0000-4000-8000-00000000000c', '00000000-0000-4000-8000-00000000000d',
     '2026-02-03 00:00:00+00', '2026-02-04 00:00:00+00'),
    ('shop/four', 'h', 'u4', 'refused', 'AlreadyRedeemed', 'OURS', '{FIRST}', '=first', 0, NULL, NULL,
     '2026-02-05 00:00:00+00', NULL);

UPDATE promo_codes SET times_redeemed = 1, granted_minor = credit_minor, last_redeemed_at = '2026-02-01 00:00:00+00';
"""


async def fill(database: Database) -> None:
    """Write the rows; the ledger is sound afterwards."""
    async with await AsyncConnection.connect(database.owner_url, autocommit=True) as owner:
        await owner.execute(_ROWS.encode())
    async with GoService.connect(database.owner_url) as go:
        await go.issue("go-code", 10, max_redemptions=-1)
        await go.redeem(FIRST, "go-code")
        await go.spend(FIRST, 30)
