"""The prefix of all environment variables."""

from typing import Final

PREFIX: Final = "VOUCHER_OPERATOR_"
