"""An event of Stripe is kept once and answered 200; any other call is answered and leaves no row."""

import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from testbed.postgres import Database
from tests.ledger.helpers import rows
from tests.web.helpers import PATH, SECRET, WebhookClient, session_event, sign, webhook, webhook_count
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.purchase.types import PaymentEvent, Received
from voucher_operator.resources.errors import PaymentProcessorUnavailableError
from voucher_operator.settings import Settings


async def _kept(database: Database) -> list[tuple[str, bytes, str]]:
    return [(*row,) for row in await rows(database, "SELECT event_id, raw, outcome FROM vouchers.webhook_event")]


async def test_event_is_kept_as_it_came(database18: Database, stripe_calls: WebhookClient) -> None:
    """Nobody knows its session; it is answered 200 all the same."""
    body = session_event(sovereign="ours.example", note="صيدلية")
    before = webhook_count("unknown")
    answer = await stripe_calls.post(body)
    assert (answer.status_code, answer.json()) == (200, {"result": "unknown"})
    assert await _kept(database18) == [(json.loads(body)["id"], body.encode(), "unknown")]
    assert webhook_count("unknown") == before + 1


async def test_event_sent_twice_is_kept_once(database18: Database, stripe_calls: WebhookClient) -> None:
    body = session_event(sovereign="ours.example")
    answers = [await stripe_calls.post(body) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert [answer.json()["result"] for answer in answers] == ["unknown", "duplicate"]
    assert len(await _kept(database18)) == 1


async def test_event_of_another_sovereign_is_kept_as_foreign(database18: Database, stripe_calls: WebhookClient) -> None:
    answer = await stripe_calls.post(session_event(sovereign="theirs.example"))
    assert (answer.status_code, answer.json()) == (200, {"result": "foreign"})
    assert [outcome for _, _, outcome in await _kept(database18)] == ["foreign"]


async def test_event_of_unknown_type_is_kept(database18: Database, stripe_calls: WebhookClient) -> None:
    for body in ('{"id": "evt_1", "type": "invoice.paid"}', '{"data": 1}', "{}"):
        answer = await stripe_calls.post(body)
        assert (answer.status_code, answer.json()) == (200, {"result": "unknown"}), body
    assert len(await _kept(database18)) == 3


POISON = {"a zero byte": "a\0b", "half a character": "\ud83d", "too long for an id": secrets.token_hex(30_000)}


@pytest.mark.parametrize("value", POISON.values(), ids=POISON)
async def test_event_that_postgresql_cannot_store_is_kept_once(
    database18: Database, stripe_calls: WebhookClient, value: str
) -> None:
    """As it came, and once: it would be sent again for days, and Stripe closes an endpoint that refuses for long."""
    found = json.loads(session_event(sovereign="ours.example"))
    for place in (found, found["data"]["object"]):
        place["id"] = value
        body = json.dumps(found)
        answers = [(await stripe_calls.post(body)).json() for _ in range(2)]
        assert answers == [{"result": "unknown"}, {"result": "duplicate"}]
        place["id"] = "known"
    for name in ("order_id", "sovereign"):
        answer = await stripe_calls.post(session_event(**{name: value}))
        assert (answer.status_code, answer.json()) == (200, {"result": "unknown"}), name
    answer = await stripe_calls.post(json.dumps({"id": "evt_kind", "type": value}))
    assert (answer.status_code, answer.json()) == (200, {"result": "unknown"})
    assert len(await _kept(database18)) == 5


BODY = session_event()
SIGNED = sign(BODY)


WRONG = {
    "none": "",
    "bare": "t=1",
    "nonsense": "nonsense",
    "letters": "t=x,v1=y",
    "not ASCII": "t=1,v1=\xe9",
    "another scheme": SIGNED.replace("v1=", "v0="),
    "cut": SIGNED[:-1],
    "another secret": sign(BODY, "whsec_other"),
    "another body": sign(BODY + " "),
    "old": sign(BODY, age=301),
}


async def test_wrong_signature_is_answered_400(database18: Database, stripe_calls: WebhookClient) -> None:
    before = webhook_count("bad_signature")
    for name, signature in WRONG.items():
        headers = [(b"Stripe-Signature", signature.encode("latin-1"))]
        answer = await stripe_calls.client.post(PATH, content=BODY, headers=headers)
        assert (answer.status_code, set(answer.json())) == (400, {"error"}), name
    assert await _kept(database18) == []
    assert webhook_count("bad_signature") == before + len(WRONG)


async def test_body_that_is_not_utf8_is_answered_400(stripe_calls: WebhookClient) -> None:
    answer = await stripe_calls.client.post(PATH, content=b"\xff\xfe", headers={"Stripe-Signature": SIGNED})
    assert (answer.status_code, set(answer.json())) == (400, {"error"})


async def test_signed_body_that_is_no_event_is_answered_400(stripe_calls: WebhookClient) -> None:
    for body in ("", "no JSON", "[]", '"text"', "[" * 60_000):
        answer = await stripe_calls.post(body)
        assert (answer.status_code, answer.json()) == (400, {"error": "the body is not an event"}), body[:9]


async def test_webhook_secret_may_come_late_and_rotate(ledger: Ledger, tmp_path: Path) -> None:
    """Without one 503, which Stripe repeats; while it changes both count; then the new one alone."""
    file = tmp_path / "webhook-secret"
    settings = Settings(stripe_webhook_secret_file=file)
    async with webhook(ledger.receive, keys=settings.webhook_secrets) as caller:
        answer = await caller.post(session_event())
        assert (answer.status_code, answer.json()) == (503, {"error": "the payment processor is not configured"})

        async def taken(secret: str) -> bool:
            body = session_event()
            return (await caller.post(body, sign(body, secret))).status_code == 200

        file.write_text(f"{SECRET}\n")
        assert (await taken(SECRET), await taken("whsec_two")) == (True, False)
        file.write_text(f"whsec_two\n{SECRET}\n")
        assert (await taken(SECRET), await taken("whsec_two")) == (True, True)
        file.write_text("whsec_two")
        assert (await taken(SECRET), await taken("whsec_two")) == (False, True)


async def test_unavailable_ledger_is_answered_500(database18: Database, ledger: Ledger) -> None:
    before = webhook_count("unavailable")
    async with webhook(ledger.receive) as caller:
        await ledger.close()
        answer = await caller.post(session_event())
    assert (answer.status_code, answer.json()) == (500, {"error": "try again later"})
    assert webhook_count("unavailable") == before + 1
    assert await _kept(database18) == []


async def _away(_: Mapping[str, Any], __: bytes) -> PaymentEvent:
    raise PaymentProcessorUnavailableError("away")


async def _broken(_: Mapping[str, Any], __: bytes) -> PaymentEvent:
    raise ZeroDivisionError


async def test_event_that_cannot_be_read_now_is_answered_500(database18: Database, ledger: Ledger) -> None:
    async with webhook(ledger.receive, reader=_away) as caller:
        answer = await caller.post(session_event())
    assert (answer.status_code, answer.json()) == (500, {"error": "try again later"})
    assert await _kept(database18) == []


async def test_unexpected_error_is_answered_500(ledger: Ledger) -> None:
    before = webhook_count("failed")
    async with webhook(ledger.receive, reader=_broken) as caller:
        answer = await caller.post(session_event())
    assert (answer.status_code, answer.json()) == (500, {"error": "internal error"})
    assert webhook_count("failed") == before + 1


@pytest.mark.parametrize("received", list(Received))
async def test_applied_event_wakes_the_controller(received: Received, caplog: pytest.LogCaptureFixture) -> None:
    """So that its event is published at once; a mismatch is logged as a warning."""
    hints: list[int] = []

    async def receive(_: PaymentEvent) -> Received:
        return received

    async with webhook(receive, applied=lambda: hints.append(1)) as caller:
        answer = await caller.post(session_event())
    assert (answer.status_code, answer.json()) == (200, {"result": received.value})
    assert len(hints) == (received is Received.APPLIED)
    warned = [record for record in caplog.records if record.levelname == "WARNING"]
    assert len(warned) == (received is Received.MISMATCH)
