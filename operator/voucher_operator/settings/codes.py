"""From where codes may come."""

from typing import Annotated

from pydantic import field_validator
from pydantic_settings import BaseSettings, NoDecode

from voucher_operator.settings.lists import split


class CodeSettings(BaseSettings):
    """Secrets with codes."""

    excluded_secrets: Annotated[tuple[str, ...], NoDecode] = ()
    """Secrets with the operator's own credentials, separated by commas: no code is read from them, in any namespace."""
    unlabelled_code_secrets: Annotated[tuple[str, ...], NoDecode] = ()
    """Names of Secrets, as shell patterns separated by commas, from which codes are read without the label
    billing.openova.io/code: "true"."""

    @field_validator("excluded_secrets", "unlabelled_code_secrets", mode="before")
    @classmethod
    def _split_names(cls, value: object) -> object:
        return split(value)
