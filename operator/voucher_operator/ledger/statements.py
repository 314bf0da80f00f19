"""Loads SQL from `ledger/sql/`: one statement a file, named by its use.

SQL lives in files of its own so that editors, reviewers and `psql -f` can read it. Every module of this package takes
its statements from here.
"""

from functools import cache
from importlib.resources import files


@cache
def statement(name: str) -> str:
    """Return the text of `sql/<name>.sql`.

    Raises FileNotFoundError if there is none: a fault of packaging, not of a user.
    """
    return files("voucher_operator.ledger").joinpath("sql", f"{name}.sql").read_text(encoding="utf-8")
