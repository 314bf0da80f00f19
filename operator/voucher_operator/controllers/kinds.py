"""The two kinds of this operator: their names in the API, and what this version needs of their CRDs.

See also: `crds/` is the source of truth; `resources` has the models; `kube` works with any kind.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from voucher_operator.kube.crd_check import ExpectedCRD
from voucher_operator.kube.kinds import ResourceKind
from voucher_operator.resources.redemption import RedemptionSpec, RedemptionStatus
from voucher_operator.resources.voucher import VoucherSpec, VoucherStatus

GROUP: Final = "billing.openova.io"
VERSION: Final = "v1alpha1"
VOUCHER: Final = ResourceKind(GROUP, VERSION, "Voucher", "vouchers")
REDEMPTION: Final = ResourceKind(GROUP, VERSION, "Redemption", "redemptions")

UNFINISHED: Final = "status.finished!=true"
"""Field selector of the Redemptions that the operator watches."""

EXPECTED_CRDS: Final[Mapping[ResourceKind, ExpectedCRD]] = MappingProxyType(
    {
        VOUCHER: ExpectedCRD({"spec": VoucherSpec, "status": VoucherStatus}),
        REDEMPTION: ExpectedCRD(
            {"spec": RedemptionSpec, "status": RedemptionStatus},
            selectable=("status.finished", "status.state", "spec.ttlSecondsAfterFinished"),
        ),
    }
)
