"""Conditions by metav1 and kstatus: what moves, what stays, whose they are."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.kstatus import kstatus
from voucher_operator.resources.conditions import (
    MAX_MESSAGE,
    READY,
    RECONCILING,
    REDEEMABLE,
    STALLED,
    VOUCHER_CONDITIONS,
    Condition,
    condition,
    format_time,
    merge,
    one_line,
    ready,
    retrying,
    stalled,
)
from voucher_operator.resources.reasons import Reason

NOW = datetime(2026, 12, 1, 8, 30, 15, 999999, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)
WRITTEN, WRITTEN_LATER = "2026-12-01T08:30:15Z", "2026-12-01T08:35:15Z"
ISSUED = ready(Reason.ISSUED, "In the ledger.", generation=1)
WAITING = retrying(Reason.LEDGER_UNAVAILABLE, "Waiting.", generation=1)
CONFLICT = stalled(Reason.CODE_CONFLICT, "Taken.", generation=1)


def merged(previous: list[dict[str, Any]], wanted: tuple[Condition, ...], now: datetime = NOW) -> list[dict[str, Any]]:
    return merge(previous, wanted, owned=VOUCHER_CONDITIONS, now=now)


def body(conditions: list[dict[str, Any]], *, generation: int = 1, observed: int = 1) -> dict[str, Any]:
    return {
        "metadata": {"generation": generation},
        "status": {"observedGeneration": observed, "conditions": conditions},
    }


def test_first_conditions_get_all_fields() -> None:
    assert merged([], ISSUED) == [
        {
            "type": "Ready",
            "status": "True",
            "observedGeneration": 1,
            "lastTransitionTime": WRITTEN,
            "reason": "Issued",
            "message": "In the ledger.",
        }
    ]


def test_transition_time_is_kept_while_status_is_the_same() -> None:
    before = merged([], ISSUED)
    (after,) = merged(before, ready(Reason.ISSUED, "Other words.", generation=2), LATER)
    assert (after["lastTransitionTime"], after["message"], after["observedGeneration"]) == (WRITTEN, "Other words.", 2)


def test_transition_time_changes_with_status() -> None:
    (failed, stuck) = merged(merged([], ISSUED), CONFLICT, LATER)
    assert failed["lastTransitionTime"] == stuck["lastTransitionTime"] == WRITTEN_LATER


def test_same_conditions_change_nothing() -> None:
    for wanted in (ISSUED, WAITING, CONFLICT):
        before = merged([], wanted)
        assert merged(before, wanted, LATER) == before


def test_reconciling_and_stalled_are_removed() -> None:
    assert [one["type"] for one in merged(merged([], WAITING), ISSUED)] == [READY]
    assert [one["type"] for one in merged(merged([], WAITING), CONFLICT)] == [READY, STALLED]


@pytest.mark.parametrize("kind", [RECONCILING, STALLED])
@pytest.mark.parametrize("holds", [False, None])
def test_reconciling_and_stalled_are_present_only_while_true(kind: str, holds: bool | None) -> None:
    assert merged([], (condition(kind, holds, Reason.ISSUED, "", generation=1),)) == []


def test_foreign_conditions_are_kept_unchanged() -> None:
    theirs: list[dict[str, Any]] = [
        {"type": "example.com/Audited", "status": "False", "extra": [1]},
        {"type": "Synced", "status": "Unknown"},
    ]
    assert merged([theirs[0], *merged([], WAITING), theirs[1]], ISSUED)[1:] == theirs


def test_owned_conditions_that_are_not_wanted_are_removed() -> None:
    wanted = (*ISSUED, condition(REDEEMABLE, None, Reason.ACTIVE, "", generation=1))
    before = merged([], wanted)
    assert [(one["type"], one["status"]) for one in before] == [(READY, "True"), (REDEEMABLE, "Unknown")]
    assert [one["type"] for one in merged(before, ISSUED)] == [READY]


@pytest.mark.parametrize(
    "damaged", [{"type": "Ready"}, {"type": "Ready", "status": "True"}, {"type": "Ready", "status": "False"}]
)
def test_damaged_previous_condition_is_replaced(damaged: dict[str, Any]) -> None:
    assert merged([damaged], ISSUED) == merged([], ISSUED)


def test_previous_list_is_not_mutated() -> None:
    before = merged([], WAITING)
    copy = [dict(one) for one in before]
    merged(before, ISSUED, LATER)
    assert before == copy


@pytest.mark.parametrize("wanted", [ISSUED + ISSUED, (condition("Other", True, Reason.ISSUED, "", generation=1),)])
def test_unknown_or_duplicate_condition_is_an_error(wanted: tuple[Condition, ...]) -> None:
    with pytest.raises(ValueError, match="owned and named once"):
        merged([], wanted)


def test_time_needs_a_zone_and_is_written_in_utc() -> None:
    assert format_time(NOW.astimezone(timezone(timedelta(hours=4)))) == WRITTEN
    with pytest.raises(ValueError, match="zone"):
        format_time(NOW.replace(tzinfo=None))


@given(st.text(max_size=3000))
def test_messages_are_one_bounded_line(text: str) -> None:
    line = one_line(text)
    assert len(line) <= MAX_MESSAGE
    assert line == one_line(line) == line.strip()
    assert line.isprintable()


def test_long_messages_are_cut() -> None:
    assert one_line("a" * MAX_MESSAGE) == "a" * MAX_MESSAGE
    assert one_line("a" * (MAX_MESSAGE + 1)) == "a" * (MAX_MESSAGE - 1) + "…"
    assert one_line("first\nsecond\0 \t third") == "first second third"


@pytest.mark.parametrize(
    ("wanted", "read"),
    [(ISSUED, "Current"), (WAITING, "InProgress"), (CONFLICT, "Failed"), ((*WAITING, CONFLICT[1]), "InProgress")],
)
def test_kstatus_follows_the_conditions(wanted: tuple[Condition, ...], read: str) -> None:
    assert kstatus(body(merged([], wanted))) == read
    assert kstatus(body(merged([], wanted), generation=2)) == "InProgress"


def test_kstatus_of_objects_without_conditions() -> None:
    assert kstatus(body([], observed=-1)) == "InProgress"
    assert kstatus({"metadata": {"generation": 1}}) == "Current"
    assert kstatus(body([{"type": "Ready", "status": "Unknown"}])) == "InProgress"
