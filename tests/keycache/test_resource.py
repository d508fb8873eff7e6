"""Resource: RFC 9728's metadata, its place and its form, and what cannot be said in it."""

import pytest

from keycache.errors import ConfigurationError
from keycache.issuer import Issuer
from keycache.resource import Resource

ISSUERS = [
    Issuer(issuer=f"https://{host}/", audiences=("api",)) for host in ("a.example", "b.example")
]


@pytest.mark.parametrize(
    ("resource", "path"),
    [
        # The two examples of section 3.1, then what "any terminating slash" says.
        ("https://resource.example.com", ""),
        ("https://resource.example.com/resource1", "/resource1"),
        ("https://resource.example.com/", ""),
        ("https://resource.example.com/a/b/", "/a/b/"),
        ("https://resource.example.com:8443/a%2Fb", "/a%2Fb"),
        ("http://127.0.0.1:8000/api", "/api"),
    ],
)
def test_well_known_path_is_inserted_between_host_and_path(resource: str, path: str) -> None:
    origin = "/".join(resource.split("/")[:3])
    described = Resource(resource=resource)

    assert (
        f"/.well-known/oauth-protected-resource{path}",
        f"{origin}/.well-known/oauth-protected-resource{path}",
    ) == (described.metadata_path, described.metadata_url)


def test_identifier_is_repeated_byte_by_byte() -> None:
    """Section 3.3: a client must not use metadata whose `resource` is not identical."""
    for resource in ("https://API.example.com:443/", "https://api.example.com/%7Ex/"):
        assert resource == Resource(resource=resource).document(ISSUERS)["resource"]


def test_trusted_issuers_are_the_authorization_servers() -> None:
    document = Resource(resource="https://api.example.com").document(ISSUERS)

    assert ["https://a.example/", "https://b.example/"] == document["authorization_servers"]


def test_authorization_servers_may_be_fewer_than_the_issuers() -> None:
    resource = Resource(
        resource="https://api.example.com", authorization_servers=("https://b.example/",)
    )

    assert ["https://b.example/"] == resource.document(ISSUERS)["authorization_servers"]


def test_parameters_without_a_value_are_left_out() -> None:
    assert {"resource", "authorization_servers", "bearer_methods_supported"} == set(
        Resource(resource="https://api.example.com").document(ISSUERS)
    )


def test_everything_that_is_said_stands_in_the_document() -> None:
    resource = Resource(
        resource="https://api.example.com",
        authorization_servers=("https://id.example.com",),
        jwks_uri="https://api.example.com/jwks.json",
        scopes_supported=("read", "write"),
        resource_name="Réports",
        resource_documentation="https://api.example.com/docs",
        resource_policy_uri="https://api.example.com/policy",
        resource_tos_uri="https://api.example.com/terms",
    )

    assert {
        "resource": "https://api.example.com",
        "authorization_servers": ["https://id.example.com"],
        "jwks_uri": "https://api.example.com/jwks.json",
        "scopes_supported": ["read", "write"],
        "bearer_methods_supported": ["header"],
        "resource_name": "Réports",
        "resource_documentation": "https://api.example.com/docs",
        "resource_policy_uri": "https://api.example.com/policy",
        "resource_tos_uri": "https://api.example.com/terms",
    } == resource.document(ISSUERS)


@pytest.mark.parametrize(
    "resource",
    [
        *("", "api", "/api", "api.example.com", "ftp://api.example.com", "urn:example:api"),
        *("http://api.example.com", "https://api.example.com/#x", "https://u:p@api.example.com"),
        *('https://api.example.com/"', "https://api.example.com/\\", "https://api.example.com/é"),
        *("https://api.example.com/?x=1", "https://api.example.com/\r\nX: y", "https:///api"),
    ],
)
def test_identifier_that_could_not_stand_in_a_challenge_is_refused(resource: str) -> None:
    with pytest.raises(ConfigurationError, match="resource"):
        Resource(resource=resource)


def test_every_problem_is_told_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Resource(
            resource="http://api.example.com",
            authorization_servers=("id.example.com",),
            jwks_uri="ftp://api.example.com",
            scopes_supported=("a b", '"'),
            resource_tos_uri="terms",
        )

    assert [
        "resource",
        "authorization_servers",
        "jwks_uri",
        "resource_tos_uri",
        "scopes",
        "scopes",
    ] == [problem.partition(":")[0] for problem in caught.value.problems]


def test_string_in_place_of_a_tuple_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="tuple"):
        Resource(resource="https://api.example.com", scopes_supported="read")  # type: ignore[arg-type]
