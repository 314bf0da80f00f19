"""How Python is started for the operator.

See also: `operator_process` and `fork_server` start replicas by it, `cluster` single commands.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
RUN_MODULE: Final = """
import runpy, sys
# Packages of the tests, which libraries of the operator's use when they are there.
sys.modules.update(dict.fromkeys(("pykube", "rich")))
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
"""
"""A program for `python -c`, whose arguments are a module and the module's own."""


def environment(database_url: str, env: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return a whole environment for the operator's command line: the database, what Python needs, and `env`."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TZ") if name in os.environ}
    return kept | {"PYTHONPATH": str(ROOT / "operator"), "DATABASE_URL": database_url} | dict(env or {})
