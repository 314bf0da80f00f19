"""A network between the tests and PostgreSQL whose connections take long to be made."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from testbed.postgres import Database


@asynccontextmanager
async def slow_network(database: Database, seconds: float) -> AsyncIterator[Callable[[str], str]]:
    """Yield how a URL is changed so that each of its connections takes so many seconds to come about."""
    there = conninfo_to_dict(database.owner_url)

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    connections: set[asyncio.Task[None]] = set()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        await asyncio.sleep(seconds)
        back, forth = await asyncio.open_connection(str(there["host"]), int(str(there["port"])))
        await asyncio.gather(forward(reader, forth), forward(back, writer))

    server = await asyncio.start_server(connect, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    try:
        yield lambda url: make_conninfo(url, host=host, port=port)
    finally:
        server.close()
        await asyncio.gather(*connections)
