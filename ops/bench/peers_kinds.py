"""The contenders of ops/bench/peers.py: how each is started, with two workers, before one answer.

Each verifies RS256 and ES256, `iss`, `aud` and `exp`, with the keys of one issuer, as its own
documentation says to. Caches of verified tokens hold 10,000, as ours does, where that can be set;
mod_oauth2's stays at its default of 1,000, since it searches its entries one after the other.
"""

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from peers_install import NODE, SERVERS, apache_modules, environment, program

from app.demo.service import command_line
from app.demo.service import environment as service_environment

WORKERS = 2
CACHED_TOKENS = 10_000
BODY = '{"message":"Access granted"}'


class Place(NamedTuple):
    """Where a contender runs: its own directory and port, and the issuer that it trusts.

    secure_jwks_url: the same keys over TLS. redis_port: of a Redis on 127.0.0.1, for who cannot
    start without one.
    """

    directory: Path
    port: int
    issuer: str
    audience: str
    secure_jwks_url: str
    redis_port: int

    @property
    def jwks_url(self) -> str:
        """Where the issuer's keys are."""
        return f"{self.issuer}/.well-known/jwks.json"


class Command(NamedTuple):
    """A process: its words, and what its environment has besides ours."""

    words: list[str]
    environment: Mapping[str, str]


class Kind(NamedTuple):
    """bare: the name of the same kind of server without auth; none for a bare one.

    needs: the group of peers_install that must be there. path: what is asked for.
    judges: whether it reads the claims of a token; one does not, which only checks signatures.
    """

    command: Callable[[Place], Command]
    bare: str | None = None
    needs: str | None = None
    path: str = "/api/answer"
    judges: bool = True


# -- Python --------------------------------------------------------------------------------------


def _bare_loop(place: Place) -> Command:
    return Command([sys.executable, str(SERVERS / "bare_loop.py"), str(place.port)], {})


def _bare_check(place: Place) -> Command:
    loop = _bare_loop(place)
    return loop._replace(words=[*loop.words, place.jwks_url])


def _sanic(way: str) -> Callable[[Place], Command]:
    def command(place: Place) -> Command:
        code = os.pathsep.join((str(SERVERS), str(SERVERS.parent.parent.parent)))
        words = ["-m", "sanic", "sanic_api:app", "--host", "127.0.0.1", "--port", str(place.port)]
        options = ["--workers", str(WORKERS), "--no-access-logs", "--no-motd"]
        return Command(
            [sys.executable, *words, *options],
            {
                "PYTHONPATH": code,
                "SANIC_AUTO_EXTEND": "false",  # Sanic's extensions, if some happen to be there
                "BENCH_KIND": way,
                "BENCH_ISSUER": place.issuer,
                "BENCH_AUDIENCE": place.audience,
            },
        )

    return command


def _verify(place: Place) -> Command:
    settings = {
        "ISSUER": place.issuer,
        "AUDIENCE": place.audience,
        "JWKS_URL": place.jwks_url,
        "WORKERS": str(WORKERS),
        "PORT": str(place.port),
        "ADMIN_PORT": "0",
    }
    return Command(command_line("serve"), service_environment(settings))


# -- Node ----------------------------------------------------------------------------------------


def _node(kind: str) -> Callable[[Place], Command]:
    def command(place: Place) -> Command:
        words = [str(SERVERS / "node.mjs"), kind, str(place.port), place.issuer, place.audience]
        return Command([str(NODE), *words], {"REDIS_PORT": str(place.redis_port)})

    return command


# -- Envoy ---------------------------------------------------------------------------------------

_TYPE = "type.googleapis.com/envoy.extensions.filters"


def _envoy(*, auth: bool, cached: int = 0) -> Callable[[Place], Command]:
    def command(place: Place) -> Command:
        file = place.directory / "envoy.json"
        file.write_text(json.dumps(_envoy_config(place, auth=auth, cached=cached)))
        # Without hot restart, so that no two of them meet in shared memory.
        options = ["--concurrency", str(WORKERS), "--disable-hot-restart", "--log-level", "error"]
        return Command([str(Path(sys.prefix, "bin", "envoy")), "-c", str(file), *options], {})

    return command


def _envoy_config(place: Place, *, auth: bool, cached: int) -> dict[str, object]:
    router = {"name": "router", "typed_config": {"@type": f"{_TYPE}.http.router.v3.Router"}}
    connection = {
        "@type": f"{_TYPE}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "route_config": {
            "response_headers_to_add": [
                {"header": {"key": "content-type", "value": "application/json"}}
            ],
            "virtual_hosts": [
                {
                    "name": "api",
                    "domains": ["*"],
                    "routes": [
                        {
                            "match": {"prefix": "/"},
                            "direct_response": {"status": 200, "body": {"inline_string": BODY}},
                        }
                    ],
                }
            ],
        },
        "http_filters": [*([_jwt_authn(place, cached)] if auth else []), router],
    }
    chain = {"filters": [{"name": "http", "typed_config": connection}]}
    return {
        "static_resources": {
            "listeners": [
                {
                    "name": "api",
                    "address": _address("127.0.0.1", place.port),
                    "filter_chains": [chain],
                    # So that two workers share 32 connections evenly.
                    "connection_balance_config": {"exact_balance": {}},
                }
            ],
            "clusters": [
                {
                    "name": "issuer",
                    "load_assignment": {
                        "cluster_name": "issuer",
                        "endpoints": [{"lb_endpoints": [{"endpoint": _issuer(place)}]}],
                    },
                }
            ],
        }
    }


def _jwt_authn(place: Place, cached: int) -> dict[str, object]:
    provider: dict[str, object] = {
        "issuer": place.issuer,
        "audiences": [place.audience],
        "remote_jwks": {
            "http_uri": {"uri": place.jwks_url, "cluster": "issuer", "timeout": "5s"},
            "cache_duration": "300s",
            "async_fetch": {},
        },
    }
    if cached:
        provider["jwt_cache_config"] = {"jwt_cache_size": cached}
    return {
        "name": "jwt",
        "typed_config": {
            "@type": f"{_TYPE}.http.jwt_authn.v3.JwtAuthentication",
            "providers": {"issuer": provider},
            "rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "issuer"}}],
        },
    }


def _issuer(place: Place) -> dict[str, object]:
    host, _, port = place.issuer.removeprefix("http://").partition(":")
    return {"address": _address(host, int(port))}


def _address(host: str, port: int) -> dict[str, object]:
    return {"socket_address": {"address": host, "port_value": port}}


# -- Apache --------------------------------------------------------------------------------------

_APACHE = """\
ServerRoot "{directory}"
ServerName 127.0.0.1
Listen 127.0.0.1:{port}
PidFile "{directory}/pid"
ErrorLog "{directory}/error.log"
LogLevel crit
DefaultRuntimeDir "{directory}"
LoadModule mpm_event_module "{modules}/mod_mpm_event.so"
LoadModule authn_core_module "{modules}/mod_authn_core.so"
LoadModule authz_core_module "{modules}/mod_authz_core.so"
LoadModule authz_user_module "{modules}/mod_authz_user.so"
{user}
{module}
StartServers {workers}
ServerLimit {workers}
ThreadsPerChild 32
MaxRequestWorkers 64
MinSpareThreads 1
MaxSpareThreads 64
KeepAliveTimeout 60
MaxKeepAliveRequests 0
DocumentRoot "{directory}/www"
<Directory "{directory}/www">
    ForceType application/json
    {access}
</Directory>
"""

_OPENIDC = """\
LoadModule auth_openidc_module "{modules}/mod_auth_openidc.so"
OIDCCryptoPassphrase bench
OIDCOAuthVerifyJwksUri {secure_jwks_url}
OIDCOAuthSSLValidateServer Off
OIDCOAuthRemoteUserClaim sub
"""
_OPENIDC_ACCESS = """\
AuthType oauth20
    <RequireAll>
        Require claim "iss:{issuer}"
        Require claim "aud:{audience}"
    </RequireAll>"""

_OAUTH2 = """\
LoadModule oauth2_module "{modules}/mod_oauth2.so"
OAuth2TokenVerify jwks_uri {jwks_url} jwks_uri.ssl_verify=false&verify.exp=required
"""
_OAUTH2_ACCESS = """\
AuthType oauth2
    <RequireAll>
        Require oauth2_claim "iss:{issuer}"
        Require oauth2_claim "aud:{audience}"
    </RequireAll>"""


def _apache(module: str = "", access: str = "Require all granted") -> Callable[[Place], Command]:
    def command(place: Place) -> Command:
        directory = place.directory
        answer = directory / "www" / "api" / "answer"
        answer.parent.mkdir(parents=True)
        answer.write_text(BODY)
        user = ""
        if os.geteuid() == 0:  # then Apache wants another user for its workers
            user = "User nobody\nGroup nogroup"
            directory.chmod(0o755)
        words: dict[str, object] = {
            "modules": apache_modules(),
            "workers": WORKERS,
            "directory": directory,
            "port": place.port,
            "issuer": place.issuer,
            "audience": place.audience,
            "jwks_url": place.jwks_url,
            "secure_jwks_url": place.secure_jwks_url,
        }
        words |= {"user": user, "module": module.format(**words), "access": access.format(**words)}
        file = directory / "apache.conf"
        file.write_text(_APACHE.format(**words))
        return Command([program("apache2"), "-D", "FOREGROUND", "-f", str(file)], environment())

    return command


LOOP, CHECK = "uvloop + httptools", "uvloop + httptools, signature check alone"
JWTAUTH, VERIFY = OURS = "keycache: JWTAuth", "keycache: /verify"

KINDS: Mapping[str, Kind] = {
    LOOP: Kind(_bare_loop),
    CHECK: Kind(_bare_check, LOOP, judges=False),
    "Sanic": Kind(_sanic("bare")),
    JWTAUTH: Kind(_sanic("keycache"), "Sanic"),
    VERIFY: Kind(_verify, "Sanic", path="/verify"),
    "Sanic, published code": Kind(_sanic("published"), "Sanic"),
    "Sanic, one PyJWKClient": Kind(_sanic("cached"), "Sanic"),
    "Express": Kind(_node("express"), needs="node"),
    "Express + jwks-rsa": Kind(_node("express+jwks-rsa"), "Express", "node"),
    "Sails": Kind(_node("sails"), needs="node"),
    "Sails + jwks-rsa": Kind(_node("sails+jwks-rsa"), "Sails", "node"),
    "ActionHero": Kind(_node("actionhero"), needs="node"),
    "ActionHero + jwks-rsa": Kind(_node("actionhero+jwks-rsa"), "ActionHero", "node"),
    "Fastify": Kind(_node("fastify"), needs="node"),
    "Fastify + fast-jwt": Kind(_node("fastify+fast-jwt"), "Fastify", "node"),
    "Fastify + fast-jwt, no cache": Kind(_node("fastify+fast-jwt-uncached"), "Fastify", "node"),
    "Fastify + jose": Kind(_node("fastify+jose"), "Fastify", "node"),
    "Envoy": Kind(_envoy(auth=False), needs="envoy"),
    "Envoy jwt_authn": Kind(_envoy(auth=True), "Envoy", "envoy"),
    "Envoy jwt_authn, token cache": Kind(_envoy(auth=True, cached=CACHED_TOKENS), "Envoy", "envoy"),
    "Apache": Kind(_apache(), needs="apache"),
    "Apache mod_auth_openidc": Kind(_apache(_OPENIDC, _OPENIDC_ACCESS), "Apache", "apache"),
    "Apache mod_oauth2": Kind(_apache(_OAUTH2, _OAUTH2_ACCESS), "Apache", "apache"),
}
"""Everything that is measured, by its name in the tables; a bare server before those it is of."""
