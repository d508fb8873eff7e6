"""Claims as a type of your own: a dataclass, TypedDict, msgspec Struct or pydantic model."""

from collections.abc import Callable
from typing import Any

import msgspec

from keycache.core.claims import Claims
from keycache.errors import ConfigurationError, Reason, TokenError


def claims_parser(kind: Any) -> Callable[[Claims], object]:  # noqa: ANN401 - any of four kinds
    """A function that makes an object of this type from verified claims.

    It makes a new object each time, so that a handler which changes it changes nobody else's. What
    the type does not name is ignored.

    It raises TokenError (invalid_claim, hence 401) when the claims do not fit: a trusted issuer has
    signed them, but they are no token for this API, as when a claim that it requires is missing;
    another token may help, more rights would not. Its cause names the claim, for the log.

    Raises ConfigurationError for a type that it cannot make.
    """
    if hasattr(kind, "model_validate"):  # pydantic, which need not be here
        make = kind.model_validate
    else:
        try:
            known = msgspec.inspect.type_info(kind)
        except TypeError as error:
            raise ConfigurationError([f"claims_type: {error}"]) from error
        if isinstance(known, msgspec.inspect.CustomType):
            known_kinds = "dataclass, TypedDict, msgspec Struct or pydantic model"
            raise ConfigurationError([f"claims_type: {kind!r} is no {known_kinds}"])

        def make(claims: Claims) -> object:
            return msgspec.convert(claims, kind)

    def parse(claims: Claims) -> object:
        try:
            return make(claims)
        except ValueError as error:  # as both libraries have it
            raise TokenError(
                Reason.INVALID_CLAIM, "The claims of the token are not those that are needed here."
            ) from error

    return parse
