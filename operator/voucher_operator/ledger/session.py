"""What sessions set after they have connected, so that defaults of the database or of the role do not reach them.

`session.sql` has the list for all of them; here is what differs by the kind of session.

See also: `pool` has the operator's sessions, `admin.reader` those of commands, `schema.session` those of a migration.
"""

import json
from collections.abc import Mapping
from typing import Final

from voucher_operator.ledger.statements import statement

SESSION: Final = statement("session")
"""The statement; its parameters are what `parameters` returns."""
CLIENT_ENCODING: Final = "UTF8"
"""Of every connection, as a parameter of libpq: psycopg could not read an answer in SQL_ASCII."""


def parameters(settings: Mapping[str, str]) -> dict[str, str]:
    """Return the parameters of SESSION for a session with these settings of its own, by name."""
    return {"settings": json.dumps(settings)}


OPERATOR: Final = parameters(
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
