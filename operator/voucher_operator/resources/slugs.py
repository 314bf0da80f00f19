"""What an Organization may be called: one rule for subdomain and slug, so that what was paid can also be provisioned.

See also: `crds/redemptions.billing.openova.io.yaml` asks the same at apply (a test holds the two together), the model
`redemption` uses it, `controllers.organization` names an Organization by it.
"""

from typing import Final

SLUG: Final = r"^[a-z][a-z0-9-]{1,29}[a-z0-9]$"
"""What the provisioning takes as a subdomain, without the final "-" that no host name may have."""
RESERVED: Final = ("system", "flux", "crossplane", "catalyst", "gitea")
"""The platform's own names."""
RESERVED_PREFIX: Final = "kube-"


def is_reserved(slug: str) -> bool:
    """Whether the platform keeps this name for itself."""
    return slug in RESERVED or slug.startswith(RESERVED_PREFIX)
