"""What orders cost, and how cards are charged."""

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings

from voucher_operator.settings.files import file_or_value


class PaymentSettings(BaseSettings):
    """Catalog, Stripe and orders."""

    sovereign: str = ""
    """This Sovereign's domain name, in the metadata of all objects at Stripe: identifies this Sovereign's objects."""
    catalog_url: str = ""
    """Base URL of the catalog service, without `/catalog/plans` and `/catalog/addons`."""
    catalog_file: Path | None = None
    """A mounted JSON file `{"plans": [...], "addons": [...]}` instead of the service; may appear later and change."""
    stripe_api_key: SecretStr = SecretStr("")
    """Stripe's secret key, or a restricted key. Without a key orders are paid by credit only."""
    stripe_api_key_file: Path | None = None
    """The same in a file, which may appear later and change. It has precedence."""
    stripe_api_base: str = "https://api.stripe.com"
    stripe_timeout: float = Field(default=20.0, gt=0, le=80)
    """Time limit of a Stripe call, in seconds."""
    stripe_minimum_minor: int | None = Field(default=None, ge=0)
    """Minimum charge of a card, in minor units, if the account's differs from the one in `payments.currency`."""
    checkout_success_url: str = ""
    """URL to which Stripe redirects a customer who has paid; can contain `{CHECKOUT_SESSION_ID}`."""
    checkout_cancel_url: str = ""
    """URL to which Stripe redirects a customer who cancels; empty: the page has no link back."""
    any_tenant: bool = False
    """Whether a Redemption may spend a customer's credit for another tenant than the one in the ledger."""
    organizations: bool = True
    """Whether an Organization is created for a paid order, if the cluster has its CRD. Otherwise only order.placed is
    published."""
    payment_deadline: int = Field(default=900, ge=1, le=43_200)
    """How long the creation of a checkout is retried before the order is rolled back, in seconds."""
    session_lookup_interval: float = Field(default=300.0, gt=0)
    """A checkout without a webhook is looked up at Stripe at this interval, in seconds."""
    stripe_webhook_secret: SecretStr = SecretStr("")
    """Stripe's signing secret for webhooks; during a rotation both secrets, separated by commas."""
    stripe_webhook_secret_file: Path | None = None
    """The same in a file, separated by white space or commas. It may appear later and change. It has precedence."""

    def stripe_key(self) -> str:
        """Return Stripe's secret key, read at each call; "" when there is none yet."""
        return file_or_value(self.stripe_api_key_file, self.stripe_api_key).strip()

    def stripe_live(self) -> bool | None:
        """Whether Stripe's key is of the live mode, and not of the test mode; None when it does not say."""
        mode = self.stripe_key()[2:8]
        return {"_live_": True, "_test_": False}.get(mode)

    def checkout_fault(self) -> str | None:
        """Return the settings that are missing before a card can be charged, in one line; None when none is."""
        wanted = {
            "VOUCHER_OPERATOR_STRIPE_API_KEY_FILE": self.stripe_key(),
            "VOUCHER_OPERATOR_CHECKOUT_SUCCESS_URL": self.checkout_success_url,
            "VOUCHER_OPERATOR_SOVEREIGN": self.sovereign,
        }
        missing = [name for name, value in wanted.items() if not value]
        return f"Cards cannot be charged: set {' and '.join(missing)}." if missing else None

    def webhook_secrets(self) -> tuple[str, ...]:
        """Return Stripe's signing secrets, read at each call; empty when there is none yet."""
        text = file_or_value(self.stripe_webhook_secret_file, self.stripe_webhook_secret)
        return tuple(dict.fromkeys(text.replace(",", " ").split()))
