"""From where codes may come."""

import json
from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode

from voucher_operator.settings.lists import split

Prefix = Annotated[str, Field(pattern=r"^[A-Z0-9-]{0,64}$")]


class CodeSettings(BaseSettings):
    """Secrets with codes, and who may issue which codes."""

    code_prefixes: Annotated[dict[str, tuple[Prefix, ...]], NoDecode] = {}
    """With what the codes of each namespace must begin, as JSON: `{"sales": ["SALES-"], "billing": [""]}`. Empty: every
    namespace may issue every code; otherwise a namespace that is absent may issue none."""

    excluded_secrets: Annotated[tuple[str, ...], NoDecode] = ()
    """Secrets with the operator's own credentials, separated by commas: no code is read from them, in any namespace."""
    unlabelled_code_secrets: Annotated[tuple[str, ...], NoDecode] = ()
    """Names of Secrets, as shell patterns separated by commas, from which codes are read without the label
    billing.openova.io/code: "true"."""

    @field_validator("code_prefixes", mode="before")
    @classmethod
    def _parse_prefixes(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            return json.loads(value or "{}")
        except ValueError:
            raise ValueError('must be JSON, for example {"sales": ["SALES-"]}') from None

    @field_validator("excluded_secrets", "unlabelled_code_secrets", mode="before")
    @classmethod
    def _split_names(cls, value: object) -> object:
        return split(value)
