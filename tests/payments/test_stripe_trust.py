"""Stripe's client trusts the CAs that the environment names, as every other connection does."""

import ssl
from pathlib import Path

import certifi
import pytest
import stripe

from tests.payments.helpers import settings
from voucher_operator.payments.stripe_gateway import StripeGateway


def _one_certificate() -> str:
    first, end, _ = Path(certifi.where()).read_text().partition("-----END CERTIFICATE-----\n")
    return first + end


async def test_ca_bundle_of_the_environment_is_trusted_instead_of_the_librarys(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Behind a proxy that decrypts, Stripe's certificate is of a private CA."""
    bundle = tmp_path / "ca.crt"
    bundle.write_text(_one_certificate())
    trusted: list[int] = []
    create = ssl.create_default_context

    def recorded(cafile: str | None = None) -> ssl.SSLContext:
        context = create(cafile=cafile)
        trusted.append(len(context.get_ca_certs()))
        return context

    monkeypatch.setattr(stripe, "ca_bundle_path", stripe.ca_bundle_path)
    monkeypatch.setattr(ssl, "create_default_context", recorded)
    await StripeGateway(settings()).close()
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    await StripeGateway(settings()).close()
    assert trusted[0] > 1
    assert trusted[1] == 1
