"""The voucher operator: vouchers as Kubernetes resources, enforced in the PostgreSQL ledger."""

__version__ = "0.1.0"
