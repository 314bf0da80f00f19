"""Vouchers that wait for a code are found by it, without a walk over all Vouchers."""

from voucher_operator.controllers.voucher.conflicts import Conflicts


def test_vouchers_that_wait_for_a_code_are_found_by_it() -> None:
    conflicts = Conflicts()
    for key, code in (("a/one", "X"), ("b/two", "X"), ("a/three", "Y")):
        conflicts.add(key, code)
    assert sorted(conflicts.waiting("X")) == ["a/one", "b/two"]
    assert sorted(conflicts.waiting(None)) == ["a/one", "a/three", "b/two"]
    assert list(conflicts.waiting("Z")) == []


def test_voucher_that_has_its_code_or_wants_another_waits_no_longer() -> None:
    conflicts = Conflicts()
    conflicts.add("a/one", "X")
    conflicts.add("a/one", "Y")
    assert (list(conflicts.waiting("X")), list(conflicts.waiting("Y"))) == ([], ["a/one"])
    conflicts.drop("a/one")
    conflicts.drop("a/one")
    assert list(conflicts.waiting(None)) == []
