"""Which request a proxy asks about: its method and path, and whether this peer may speak for it.

Proxies say it in three ways:

    X-Original-Method, X-Original-URI      nginx, as ops/proxies has it
    X-Forwarded-Method, X-Forwarded-Uri    Traefik, Caddy; Envoy and HAProxy as in ops/proxies
    PUT /verify/orders/7                   Envoy's ext_authz with a path_prefix

Anybody can send these. So only peers whose own address is configured are believed; and as such a
proxy may pass on what a client sent under the names that it does not use itself, all that is said
must be complete and agree.
"""

import re
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import NamedTuple, Protocol

from keycache.errors import Reason, TokenError

Network = IPv4Network | IPv6Network

PREFIX = "/verify"

FORMS = (
    ("x-original-method", "x-original-uri"),
    ("x-forwarded-method", "x-forwarded-uri"),
)

_METHOD = re.compile(r"[A-Z][A-Z-]*")
"""As registered. What spells one otherwise (`get`) could be one method to us and one to the API."""

_TARGET = re.compile(r"/[!-~]*")
"""RFC 9112 section 3.2.1: visible ASCII; a fragment is refused below."""


class Asking(Protocol):
    """A request for `PREFIX` or a path below it."""

    @property
    def method(self) -> str:
        """As it was sent."""

    @property
    def path(self) -> str:
        """As it was sent, without the query."""

    @property
    def trusted(self) -> bool:
        """Whether its peer is a trusted proxy."""

    def header(self, name: str) -> Sequence[str]:
        """All values of a field; its name in lower case."""


class Original(NamedTuple):
    """The request that is asked about; the path as it was sent, without the query."""

    method: str
    path: str


def is_trusted(peer: str | None, proxies: Sequence[Network]) -> bool:
    """Whether the peer of a connection is one of these proxies, by its own address."""
    try:
        address = ip_address(peer or "")
    except ValueError:
        return False  # a Unix socket has none
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped  # of an IPv4 peer, on a listener for both
    return any(address in network for network in proxies)


def original(asking: Asking) -> Original | None:
    """The request that is asked about; None when nothing is said of one.

    Raises TokenError: untrusted_proxy when the peer is not trusted; unknown_request when it is said
    incompletely, or in two ways that differ; ambiguous_path.
    """
    if not asking.trusted:
        raise TokenError(
            Reason.UNTRUSTED_PROXY, "Only a trusted proxy may ask about other requests."
        )
    said = []
    if asking.path != PREFIX:
        said.append(Original(asking.method, asking.path.removeprefix(PREFIX)))
    for names in FORMS:
        methods, targets = map(asking.header, names)
        if methods or targets:
            if len(methods) != 1 or len(targets) != 1:
                raise _unknown("The proxy did not say completely which request it asks about.")
            said.append(Original(methods[0], targets[0].partition("?")[0]))
    if not said:
        return None
    first = said[0]
    if any(other != first for other in said):
        raise _unknown("It is said in two ways, which differ, which request is asked about.")
    if not _METHOD.fullmatch(first.method) or not _TARGET.fullmatch(first.path):
        raise _unknown("The request that is asked about has no valid method or path.")
    if "#" in first.path:
        raise TokenError(Reason.AMBIGUOUS_PATH, "The path can be read in two ways.")
    return first


def _unknown(details: str) -> TokenError:
    return TokenError(Reason.UNKNOWN_REQUEST, details)
