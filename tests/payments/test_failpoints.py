"""A failpoint kills the process exactly where its variable says."""

import asyncio
import signal
import subprocess
import sys

import pytest

from testbed.interpreter import environment
from voucher_operator.failpoints import VARIABLE, Step, failpoint

SCRIPT = """
import asyncio
from voucher_operator.failpoints import Step, failpoint
async def main():
    async with failpoint(Step.STRIPE_COUPON):
        print("coupon", flush=True)
    async with failpoint(Step.STRIPE_SESSION):
        print("session", flush=True)
asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("order", "said", "code"),
    [
        ("before:stripe_session", "coupon\n", -signal.SIGKILL),
        ("after:stripe_session", "coupon\nsession\n", -signal.SIGKILL),
        ("", "coupon\nsession\n", 0),
    ],
)
def test_process_is_killed_at_the_given_failpoint_only(order: str, said: str, code: int) -> None:
    env = environment("", {VARIABLE: order} if order else {})
    ended = subprocess.run([sys.executable, "-c", SCRIPT], env=env, capture_output=True, text=True)
    assert (ended.stdout, ended.returncode) == (said, code)


async def test_error_inside_a_failpoint_is_raised() -> None:
    with pytest.raises(asyncio.CancelledError):
        async with failpoint(Step.PLACE):
            raise asyncio.CancelledError
