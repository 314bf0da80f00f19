"""Every replica takes webhooks; the leader alone publishes, and shows what waits without being unready for it."""

import asyncio
import secrets

import httpx

from testbed.nats import NatsServer
from testbed.postgres import Database
from testbed.processes import wait_until
from tests.conftest import Operators
from tests.ledger.helpers import rows
from tests.messaging.helpers import Streams, wait_published, write_events
from tests.web.helpers import PATH, SECRET, session_event, sign


def _send_webhook(port: int) -> str:
    body = session_event()
    answer = httpx.post(
        f"http://127.0.0.1:{port}{PATH}", content=body, headers={"Stripe-Signature": sign(body)}, trust_env=False
    )
    assert answer.status_code == 200, answer.text
    return str(answer.json()["result"])


async def test_every_replica_takes_webhooks_and_the_leader_publishes(
    database18: Database, operators: Operators
) -> None:
    operators.allow += ["events are not published: "]
    with NatsServer() as server:
        streams = Streams(server, secrets.token_hex(4))
        server.stop()
        await write_events(database18, ["old"])
        await rows(database18, "UPDATE vouchers.outbox SET published_at = at - interval '31 days'")
        env = {
            "VOUCHER_OPERATOR_NATS_URL": server.url,
            "VOUCHER_OPERATOR_NATS_STREAM": streams.name,
            "VOUCHER_OPERATOR_NATS_SUBJECT_PREFIX": streams.prefix,
            "VOUCHER_OPERATOR_STRIPE_WEBHOOK_SECRET": SECRET,
        }
        leader = operators.start("leader", env)
        leader.wait_ready(leader=True)
        standby = operators.start("standby", env)
        standby.wait_ready()
        async with asyncio.timeout(40):  # what was published long ago is taken out
            while await rows(database18, "SELECT 1 FROM vouchers.outbox"):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert [_send_webhook(replica.webhook_port) for replica in (leader, standby)] == ["unknown", "unknown"]
        assert standby.metrics()['voucher_operator_webhooks_total{result="unknown"}'] == 1
        await write_events(database18, ["one"])
        wait_until(lambda: leader.ready().get("outbox", {}).get("pending") == 1, "an event that waits")
        shown = leader.ready()
        assert shown["ready"]
        assert shown["outbox"]["problem"].startswith("NATS cannot be reached")
        assert leader.metrics()["voucher_operator_outbox_pending"] == 1
        assert "outbox" not in standby.ready()
        server.start()
        await wait_published(database18)
        assert await streams.count() == 1
        wait_until(lambda: leader.ready().get("outbox") == {"pending": 0, "oldest_seconds": 0}, "nothing that waits")
