"""What sessions set after they have connected, so that defaults of the database or of the role do not reach them.

`session.sql` has the list for all of them; here is what differs by the kind of session. Behind a connection pooler in
transaction mode each transaction has another session, and each transaction sets all of it for itself.

See also: `transactions` begins those; `pool` has the operator's sessions, `admin.reader` those of commands,
`schema.session` those of a migration.
"""

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

from psycopg import sql

from voucher_operator.ledger.statements import statement

SESSION: Final = statement("session")
"""The statement; its parameters are what `parameters` returns."""
CLIENT_ENCODING: Final = "UTF8"
"""Of every connection, as a parameter of libpq: psycopg could not read an answer in SQL_ASCII."""


Pooler = Literal["auto", "session", "transaction"]
"""What a connection is: "session": a session of its own, at PostgreSQL itself or at a pooler in session mode;
"transaction": another session for each transaction; "auto": the latter if there is any pooler between."""
Access = Literal["", "READ ONLY", "READ WRITE"]
"""What the transactions may do; "" leaves it to the database's default."""


def parameters(
    settings: Mapping[str, str], *, pooler: Pooler = "session", backend_pid: int = 0
) -> dict[str, str | int | bool | None]:
    """Return the parameters of SESSION for a session with these settings of its own, by name.

    `backend_pid` is what the server sent to libpq when it connected; only "auto" needs it.
    """
    shared = None if pooler == "auto" else pooler == "transaction"
    return {"settings": json.dumps(dict(settings)), "shared": shared, "backend_pid": backend_pid}


def begin(settings: Mapping[str, str], access: Access) -> bytes:
    """Return the statements that begin a transaction with these settings: one message, without parameters.

    The result of the last one is that of SESSION. The isolation level of a transaction that has begun cannot be set by
    its default.
    """
    text = SESSION
    for name, value in parameters(settings, pooler="transaction").items():
        text = text.replace(f"%({name})s".encode(), sql.Literal(value).as_bytes(None))
    return f"BEGIN ISOLATION LEVEL READ COMMITTED {access};\n".encode() + text


OPERATOR_SETTINGS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "lock_timeout": "1s",
        "statement_timeout": "8s",
        "idle_in_transaction_session_timeout": "5s",
        # The plans of prepared statements stay the same whatever the tables' size: one generic plan, by index.
        "plan_cache_mode": "force_generic_plan",
        "enable_seqscan": "off",
        "jit": "off",
    }
)
"""For the operator's own sessions. Whether they may write is the database's decision."""
OPERATOR: Final = parameters(OPERATOR_SETTINGS)
"""The parameters of SESSION for them."""
