"""The names of uvicorn and h11 that the package uses without their being documented: an upgrade may move them."""

import asyncio
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version

import h11
import pytest
import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from voucher_operator.web import uvicorn_internals
from voucher_operator.web.uvicorn_internals import Config, Connection, Limits, Server

MOVED = f"uvicorn {uvicorn.__version__}, h11 {version('h11')}: {{}}; adapt voucher_operator/web/uvicorn_internals.py"
LIMITS = Limits(connections=1, reading=1.0, stopping=1.0)


def overridden(cls: type) -> list[str]:
    """Return the public methods of a class, but those that are its own."""
    own = {"begin_stop", "cancel_requests"}
    return [name for name, part in vars(cls).items() if inspect.isfunction(part) and name[0] != "_" and name not in own]


@pytest.mark.parametrize(("ours", "base"), [(Connection, H11Protocol), (Server, uvicorn.Server)])
def test_every_method_that_is_overridden_is_uvicorns_with_the_same_parameters(ours: type, base: type) -> None:
    assert overridden(ours)
    for name in overridden(ours):
        method = getattr(base, name, None)
        assert method is not None, MOVED.format(f"{base.__name__}.{name} is gone")
        parameters = list(inspect.signature(method).parameters)
        assert parameters == list(inspect.signature(getattr(ours, name)).parameters), MOVED.format(f"{name} changed")


async def test_every_attribute_that_is_read_is_there() -> None:
    server = Server(Config(Starlette(), LIMITS))
    protocol = Connection(server.config, server.server_state, {}, asyncio.get_running_loop())
    for thing, names in (
        (server, ("should_exit", "server_state.tasks", "server_state.connections")),
        (protocol, ("config", "connections", "transport", "loop", "conn.their_state")),
        (h11, ("IDLE", "SEND_BODY")),
    ):
        for name in names:
            found: object = thing
            for part in name.split("."):
                assert hasattr(found, part), MOVED.format(f"{type(thing).__name__}.{name} is gone")
                found = getattr(found, part)
    assert protocol.connections is server.server_state.connections
    assert protocol.conn.their_state is h11.IDLE


async def test_serve_enters_capture_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    entered = []

    @contextmanager
    def capture(_: uvicorn.Server) -> Iterator[None]:
        entered.append(1)
        yield

    monkeypatch.setattr(uvicorn_internals.Server, "capture_signals", capture)
    server = Server(Config(Starlette(), LIMITS))
    server.begin_stop()
    async with asyncio.timeout(10):
        await server.serve(sockets=[])
    assert entered == [1], MOVED.format("Server.serve does not call capture_signals")
