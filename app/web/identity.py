"""IdentityHeaders: who a token speaks for, in header fields that a proxy copies to the request."""

import json
import re
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterable, Mapping
from urllib.parse import quote

from keycache.errors import ConfigurationError
from keycache.predicates import claim_path, look_up

DEFAULT = {"X-Auth-Subject": "subject", "X-Auth-Issuer": "issuer", "X-Auth-Scope": "scopes"}

RESERVED = frozenset(
    {
        *("allow", "alt-svc", "cache-control", "connection", "content-encoding"),
        *("content-language", "content-length", "content-location", "content-range"),
        *("content-type", "cookie", "date", "expires", "host", "keep-alive", "location"),
        *("proxy-authenticate", "proxy-connection", "retry-after", "server", "set-cookie", "te"),
        *("trailer", "transfer-encoding", "upgrade", "vary", "via", "warning"),
        *("www-authenticate", "x-request-id"),
    }
)
"""Fields of an answer that mean something to HTTP, to the proxy, or to us."""

_NAME = re.compile(r"[A-Za-z0-9]+(-[A-Za-z0-9]+)*")
_SAFE = "".join(map(chr, range(0x21, 0x7F))).replace("%", "")

Value = Callable[[Mapping[str, object], Iterable[str]], str]
"""(claims, scopes) → what stands in the header."""


class IdentityHeaders:
    """Makes the same header fields for every request, so that a proxy which copies them overwrites
    what a client may have sent under these names: a field of which nothing is known is empty.

    sources: for each field's name what it tells: `subject`, `issuer`, `scopes`, `payload` (all the
    claims, as base64url JSON without padding), or the path of a claim (see `claim_path`; `/subject`
    is a claim that is called so).

    Raises ConfigurationError, with every problem.
    """

    def __init__(self, sources: Mapping[str, str] = DEFAULT) -> None:
        problems = header_problems(sources)
        self._values: dict[str, Value] = {}
        for name, source in sources.items():
            try:
                self._values[name] = _value(source)
            except ConfigurationError as error:
                problems += [f"identity_headers: {name}: {problem}" for problem in error.problems]
        if problems:
            raise ConfigurationError(problems)
        self._nobody = dict.fromkeys(self._values, "")

    def of(self, claims: Mapping[str, object] | None, scopes: Iterable[str]) -> dict[str, str]:
        """The fields for these claims and the scopes they grant; `None` is nobody."""
        if claims is None:
            return dict(self._nobody)
        return {name: value(claims, scopes) for name, value in self._values.items()}


def header_problems(names: Iterable[str]) -> list[str]:
    """What is wrong with names of header fields that tell who somebody is, one sentence each.

    Letters, digits and hyphens only: proxies drop other names, or take `_` for `-` (CGI).
    """
    problems = []
    seen: set[str] = set()
    for name in names:
        if not _NAME.fullmatch(name):
            problems.append(
                f"identity_headers: {name!r} is not made of letters and digits with hyphens between"
            )
        elif name.lower() in RESERVED:
            problems.append(f"identity_headers: {name} has another meaning; choose another name")
        elif name.lower() in seen:
            problems.append(f"identity_headers: {name} is named twice")
        seen.add(name.lower())
    return problems


def header_safe(value: object) -> str:
    """A claim as a header field can carry it: anything but visible ASCII is percent-encoded
    (UTF-8), and so is `%`, hence two texts never look alike.

    The items of a list are separated by spaces; an object is its JSON; what is absent is nothing.
    """
    match value:
        case None:
            return ""
        case str():
            return quote(value, safe=_SAFE, errors="replace")
        case list() | tuple() if all(isinstance(item, str) for item in value):
            return " ".join(map(header_safe, value))
        case _:
            return header_safe(_json(value))


def _value(source: str) -> Value:
    match source:
        case "subject":
            return lambda claims, _: header_safe(claims.get("sub"))
        case "issuer":
            return lambda claims, _: header_safe(claims.get("iss"))
        case "scopes":
            return lambda _, scopes: " ".join(sorted(map(header_safe, scopes)))
        case "payload":
            return lambda claims, _: urlsafe_b64encode(_json(claims).encode()).rstrip(b"=").decode()
        case _:
            path = claim_path(source)
            return lambda claims, _: header_safe(look_up(claims, path))


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
