"""Calls of the payment processor are limited in all, and for each namespace."""

from contextlib import ExitStack

import pytest

from voucher_operator.services.checkout_slots import CheckoutSlots


def fill(slots: CheckoutSlots, stack: ExitStack, origin: str) -> int:
    """Take slots until there is none for this origin; return how many."""
    number = 0
    while not slots.is_full(origin):
        stack.enter_context(slots.held(origin))
        number += 1
    return number


def test_namespace_leaves_a_quarter_to_the_others() -> None:
    slots = CheckoutSlots(64)
    with ExitStack() as stack:
        assert fill(slots, stack, "many") == 48
        assert fill(slots, stack, "one") == 16
        assert slots.is_full("another")
    assert fill(slots, ExitStack(), "another") == 48


@pytest.mark.parametrize("size", [0, 1])
def test_smallest_number_of_slots_is_one(size: int) -> None:
    slots = CheckoutSlots(size)
    with ExitStack() as stack:
        assert fill(slots, stack, "shop") == 1
        assert slots.is_full("other")
    assert not slots.is_full("other")
