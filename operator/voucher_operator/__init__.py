"""The voucher operator: vouchers as Kubernetes resources, enforced in the Postgres ledger."""

__version__ = "0.1.0"
