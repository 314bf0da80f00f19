"""The registry of SQL statements: one statement a file, named by its subject and use, beside the module that runs it.

SQL lives in files of its own so that editors, reviewers and `psql -f` can read it. A name is unique in the whole
`ledger` package. See also: `locks`, which has what each statement locks.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from types import MappingProxyType


@cache
def statement(name: str) -> bytes:
    """Return the text of `<name>.sql` as psycopg takes it: in bytes, because the type of a `str` query is a literal.

    Raises KeyError if there is none: a fault of packaging, not of a user.
    """
    return registry()[name].read_bytes()


@cache
def registry() -> Mapping[str, Traversable]:
    """Return all statements: name -> file. Raises ValueError when two files have one name."""
    found: dict[str, Traversable] = {}
    for file in _sql_files(files("voucher_operator.ledger")):
        name = file.name.removesuffix(".sql")
        if name in found:
            raise ValueError(f"two statements are named {name}")
        found[name] = file
    return MappingProxyType(found)


def _sql_files(folder: Traversable) -> Iterator[Traversable]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _sql_files(entry)
        elif entry.name.endswith(".sql"):
            yield entry
