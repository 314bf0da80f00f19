"""Logins at NATS: credentials in the URL or in files, and a user who may do no more than publish."""

from pathlib import Path
from urllib.parse import quote

import pytest
from nats.aio.client import Client

from testbed.nats import NatsServer
from testbed.postgres import Database
from tests.ledger.helpers import until
from tests.messaging.helpers import running_relay, wait_published, write_events
from voucher_operator.ledger.api import Ledger
from voucher_operator.messaging.outbox_relay import Relay
from voucher_operator.settings import Settings

PASSWORD = "a/b,c#d?e%f:g@h i"
TOKEN = "t/o,k#e?n%"
PERMISSIONS = {"publish": ["one.>"], "subscribe": ["_INBOX.>"]}


def _relay(ledger: Ledger, settings: Settings) -> Relay:
    return Relay(ledger, settings.nats_servers, stream="ONE", prefix="one", poll=0.05, login=settings.nats_login)


def _file(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text)
    return folder / name


async def test_special_characters_of_a_password_can_be_encoded_in_the_url(database18: Database, ledger: Ledger) -> None:
    with NatsServer(password=PASSWORD) as server:
        url = f"nats://operator:{quote(PASSWORD, safe='')}@127.0.0.1:{server.port}"
        await write_events(database18, ["one"])
        async with running_relay(_relay(ledger, Settings(nats_url=url))):
            await wait_published(database18)


async def test_user_and_password_are_read_from_files(database18: Database, ledger: Ledger, tmp_path: Path) -> None:
    with NatsServer(password=PASSWORD) as server:
        settings = Settings(
            nats_url=f"nats://127.0.0.1:{server.port}",
            nats_user_file=_file(tmp_path, "user", "operator\n"),
            nats_password_file=tmp_path / "password",
        )
        await write_events(database18, ["one"])
        async with running_relay(_relay(ledger, settings)) as relay:
            await until(lambda: "refuses the login" in str(relay.details().get("problem")))
            _file(tmp_path, "password", f"{PASSWORD}\n")
            await wait_published(database18)


@pytest.mark.parametrize("where", ["url", "file"])
async def test_token_is_accepted(database18: Database, ledger: Ledger, tmp_path: Path, where: str) -> None:
    with NatsServer(authorization={"token": TOKEN}) as server:
        login = f"{quote(TOKEN, safe='')}@" if where == "url" else ""
        token = _file(tmp_path, "token", TOKEN) if where == "file" else None
        settings = Settings(nats_url=f"nats://{login}127.0.0.1:{server.port}", nats_token_file=token)
        await write_events(database18, ["one"])
        async with running_relay(_relay(ledger, settings)):
            await wait_published(database18)


async def test_user_who_may_only_publish_is_enough(
    database18: Database, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the permission to look streams up, and with none it says which stream is needed."""
    monkeypatch.setattr("voucher_operator.messaging.nats_connection._ACK_TIMEOUT", 0.5)
    users = [
        {"user": "admin", "password": "admin"},
        {"user": "operator", "password": "operator", "permissions": PERMISSIONS},
    ]
    with NatsServer(authorization={"users": users}) as server:
        at = f"127.0.0.1:{server.port}"
        await write_events(database18, ["one"])
        async with running_relay(_relay(ledger, Settings(nats_url=f"nats://operator:operator@{at}"))) as relay:
            await until(lambda: "No JetStream stream has the subject" in str(relay.details().get("problem")))
            admin = Client()
            await admin.connect(f"nats://admin:admin@{at}")
            await admin.jetstream().add_stream(name="ONE", subjects=["one.>"])
            await wait_published(database18)
            assert (await admin.jetstream().stream_info("ONE")).state.messages == 1
            await admin.close()
