"""Names of Organizations: one rule for subdomain and slug, so that a paid order can be provisioned.

See also: `crds/redemptions.billing.openova.io.yaml` has the same rule (a test compares them); the model `redemption`
uses it; `controllers.organization` creates the Organization under this name.
"""

from typing import Final

SLUG: Final = r"^[a-z][a-z0-9-]{1,29}[a-z0-9]$"
"""The subdomains that the provisioning accepts, without a final "-", which a host name must not have."""
RESERVED: Final = ("system", "flux", "crossplane", "catalyst", "gitea")
"""Names of the platform itself."""
RESERVED_PREFIX: Final = "kube-"


def is_reserved(slug: str) -> bool:
    """Whether the platform reserves this name."""
    return slug in RESERVED or slug.startswith(RESERVED_PREFIX)
