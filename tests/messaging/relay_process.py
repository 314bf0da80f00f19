"""A relay in its own process, to be killed: `python -m tests.messaging.relay_process DATABASE NATS STREAM PREFIX`."""

import asyncio
import sys

from voucher_operator.ledger.api import Ledger
from voucher_operator.messaging.outbox_relay import Relay


async def main(database: str, url: str, stream: str, prefix: str) -> None:
    """Publish until killed."""
    ledger = Ledger(lambda: database)
    await ledger.open()
    await Relay(ledger, lambda: [url], stream=stream, prefix=prefix).run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
