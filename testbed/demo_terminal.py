"""Output of the demo: headings, commands as one would type them, and what they print.

See also: `demo` and `demo_orders` say what happens.
"""

import sys
from typing import Final

from testbed.cluster import Stack
from testbed.interpreter import ROOT

WAIT: Final = "--timeout=60s"


def say(what: str) -> None:
    """Print a heading."""
    print(f"\n\033[1m# {what}\033[0m" if sys.stdout.isatty() else f"\n# {what}", flush=True)


def kubectl(stack: Stack, *args: str) -> None:
    """Show a command and what it prints, in the demo's namespace. Raises TestbedError when it fails."""
    print(f"$ kubectl {' '.join(args).replace(str(ROOT) + '/', '')}", flush=True)
    print(stack.cluster.kubectl("--namespace=billing", *args).rstrip(), flush=True)


def wait_for(stack: Stack, path: str, value: str, *what: str) -> None:
    """Show how one waits until a field has a value. Raises TestbedError after a minute."""
    kubectl(stack, "wait", f"--for=jsonpath={{{path}}}={value}", *what, WAIT)
