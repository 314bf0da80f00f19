"""Reads what the resources of some namespaces say, for `voucher-operator verify --namespace`.

See also: `ledger.admin.verify` compares it with the ledger, and checks the ledger's own invariants.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from voucher_operator.controllers.kinds import REDEMPTION, VOUCHER
from voucher_operator.kube.cache import key_of
from voucher_operator.kube.client import KubeApi
from voucher_operator.resources.errors import InvalidSpecError
from voucher_operator.resources.redemption import Redemption, State


async def redeemed_keys(namespaces: Sequence[str]) -> AsyncIterator[list[str]]:
    """Yield the keys of the Redemptions that say Redeemed, page by page, possibly some twice; raises ApiError."""
    async with _api() as api:
        for namespace in namespaces:
            async for page in api.pages(REDEMPTION, namespace, f"status.state={State.REDEEMED}"):
                yield [key_of(body) for body in page]


async def rejected_requests(namespaces: Sequence[str]) -> AsyncIterator[Mapping[str, str]]:
    """Yield the Redemptions that say Rejected, page by page: key -> hash of the spec. Raises ApiError.

    Those whose spec this version does not know are left out.
    """
    async with _api() as api:
        for namespace in namespaces:
            async for page in api.pages(REDEMPTION, namespace, f"status.state={State.REJECTED}"):
                yield {key_of(body): found for body in page if (found := _hash(body)) is not None}


async def voucher_keys(namespaces: Sequence[str]) -> list[str]:
    """Return the keys of all Vouchers; raises ApiError."""
    async with _api() as api:
        return [
            key_of(body) for namespace in namespaces async for page in api.pages(VOUCHER, namespace) for body in page
        ]


def _hash(body: Mapping[str, object]) -> str | None:
    try:
        return Redemption.parse(body).request_hash()
    except InvalidSpecError:
        return None


@asynccontextmanager
async def _api() -> AsyncIterator[KubeApi]:
    api = KubeApi()
    await api.open()
    try:
        yield api
    finally:
        await api.close()
