"""Resource: what a protected resource says about itself to clients (RFC 9728), and where.

    resource = Resource(resource="https://api.example.com/reports", scopes_supported=("read",))
    resource.metadata_url   # https://api.example.com/.well-known/oauth-protected-resource/reports

A client that was refused finds this URL in the challenge (`resource_metadata`), reads there whom to
ask for a token, and comes back with one.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from keycache.errors import ConfigurationError
from keycache.issuer import Issuer, url_problems
from keycache.problems import check_scopes

WELL_KNOWN = "/.well-known/oauth-protected-resource"

_URL = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+")
"""The characters of a URI (RFC 3986 section 2): as such it can stand in a quoted-string."""

_PAGES = ("jwks_uri", "resource_documentation", "resource_policy_uri", "resource_tos_uri")


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """The metadata of one protected resource (RFC 9728 section 2). What is empty is left out.

    resource: its identifier: the https URL (http on loopback) under which clients know it, without
        a fragment. A query component, which section 1.2 advises against, is refused.
    authorization_servers: issuer identifiers; empty: those of all trusted issuers.
    jwks_uri: keys with which the resource signs its own answers; not those that sign the tokens.
    scopes_supported: scopes that a client may ask for.
    resource_name: its name, for people.
    resource_documentation, resource_policy_uri, resource_tos_uri: pages for people.

    Raises ConfigurationError, with every problem.
    """

    resource: str
    authorization_servers: tuple[str, ...] = ()
    jwks_uri: str | None = None
    scopes_supported: tuple[str, ...] = ()
    resource_name: str | None = None
    resource_documentation: str | None = None
    resource_policy_uri: str | None = None
    resource_tos_uri: str | None = None

    def __post_init__(self) -> None:
        lists = ("authorization_servers", "scopes_supported")
        if not all(isinstance(getattr(self, name), tuple) for name in lists):
            raise ConfigurationError([f"{', '.join(lists)}: each must be a tuple of strings"])
        problems = _url_problems("resource", self.resource)
        if not problems and "?" in self.resource:
            problems.append("resource: must have no query component (RFC 9728 section 1.2)")
        for server in self.authorization_servers:
            problems += _url_problems("authorization_servers", server)
        for name in _PAGES:
            url = getattr(self, name)
            problems += [] if url is None else _url_problems(name, url)
        try:
            check_scopes(self.scopes_supported)
        except ConfigurationError as error:
            problems += error.problems
        if problems:
            raise ConfigurationError(problems)

    @property
    def metadata_path(self) -> str:
        """Where its metadata is on its host: the well-known path comes before its own (section
        3.1), so that one host may have several resources.
        """
        path = urlsplit(self.resource).path
        return WELL_KNOWN + ("" if path == "/" else path)

    @property
    def metadata_url(self) -> str:
        """Where its metadata is: what stands in a challenge as `resource_metadata` (section 5.1).

        It holds no character that would have to be escaped in a quoted-string.
        """
        parts = urlsplit(self.resource)
        return f"{parts.scheme}://{parts.netloc}{self.metadata_path}"

    def document(self, issuers: Sequence[Issuer]) -> dict[str, object]:
        """The metadata as the members of a JSON object (section 3.2). Parameters without a value
        are left out, as that section demands.
        """
        servers = self.authorization_servers or tuple(issuer.issuer for issuer in issuers)
        members: dict[str, str | list[str] | None] = {
            "resource": self.resource,
            "resource_name": self.resource_name,
            "authorization_servers": list(servers),
            "jwks_uri": self.jwks_uri,
            "scopes_supported": list(self.scopes_supported),
            "bearer_methods_supported": ["header"],  # the one of the three that we read
            "resource_documentation": self.resource_documentation,
            "resource_policy_uri": self.resource_policy_uri,
            "resource_tos_uri": self.resource_tos_uri,
        }
        return {name: value for name, value in members.items() if value}


def _url_problems(setting: str, url: str) -> list[str]:
    problems = url_problems(setting, url)
    if not problems and not _URL.fullmatch(url):
        problems.append(f"{setting}: {url!r} holds characters that no URL has")
    return problems
