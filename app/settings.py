"""Settings: every number and name of the service, from the environment and one TOML file.

The environment (`KEYCACHE_TTL`) wins over the file named by `KEYCACHE_CONFIG` (`ttl`). Seconds and
bytes are plain numbers; lists are comma-separated in the environment. What is wrong is reported all
at once, one sentence each, and no secret is ever part of a sentence or of `repr`.
"""

import os
import re
import tomllib
from base64 import urlsafe_b64decode
from binascii import Error as Base64Error
from collections.abc import Callable, Iterable
from copy import deepcopy
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    SecretBytes,
    SecretStr,
    ValidationError,
)
from pydantic_core import ErrorDetails, PydanticCustomError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    SettingsConfigDict,
)

from app.cpus import available_cpus
from app.logs import Style
from keycache.core.budget import Limits
from keycache.core.freshness import Lifetimes
from keycache.errors import ConfigurationError
from keycache.issuer import DEFAULT_ALGORITHMS, Issuer
from keycache.runtime import Options

PREFIX = "KEYCACHE_"
CONFIG = "KEYCACHE_CONFIG"
REDIS_SCHEMES = (
    *("redis", "rediss", "unix"),
    *("redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster"),
)
HEADER_BYTES = 16384
"""The most that Sanic reads as the head of a request (its HEADER_CEILING)."""

_LIFETIMES, _LIMITS, _OPTIONS = Lifetimes(), Limits(), Options()


def _split(value: object) -> object:
    """A comma-separated text as a list; anything else (a TOML array) as it is."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def _seal_keys(value: object) -> object:
    """Each key decoded: 43 characters, or 44 with padding, as `keycache seal-key` prints them."""
    texts = _split(value)
    if not isinstance(texts, list):
        return texts
    return [_seal_key(number, text) for number, text in enumerate(texts, 1)]


def _seal_key(number: int, text: object) -> bytes:
    try:
        if isinstance(text, str) and re.fullmatch(r"[A-Za-z0-9_-]{43}=?", text):
            return urlsafe_b64decode(text[:43] + "=")
    except Base64Error:
        pass
    raise PydanticCustomError(
        "seal_key",
        "key {number} is not the base64url text of 32 bytes; `keycache seal-key` prints one",
        {"number": number},
    )


def _redis_url(value: object) -> object:
    """The URL unchanged. Only its scheme can be judged here without repeating a secret."""
    if isinstance(value, str) and value.partition("://")[0] not in REDIS_SCHEMES:
        raise PydanticCustomError(
            "redis_url", "not a URL that begins with " + ", ".join(f"{s}://" for s in REDIS_SCHEMES)
        )
    return value


List = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
SealKeys = Annotated[tuple[SecretBytes, ...], NoDecode, BeforeValidator(_seal_keys)]
RedisURL = Annotated[SecretStr, BeforeValidator(_redis_url)]
Port = Annotated[int, Field(ge=0, le=65535)]


class IssuerTable(BaseModel):
    """One `[[issuers]]` table of the file; what it leaves out comes from the top level."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    issuer: str = ""
    name: str = ""
    jwks_url: str | None = None
    audience: List | None = None
    algorithms: List | None = None
    require: List | None = None
    typ: List | None = None
    leeway: FiniteFloat | None = None
    kid_optional: bool | None = None


class Settings(BaseSettings):
    """Everything the service can be told. Make it with `load()`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="forbid"
    )

    issuer: str = Field("", description="The exact `iss` of your tokens; trust has no default.")
    audience: List = Field((), description="Who we are: a token must name one of these in `aud`.")
    jwks_url: str | None = Field(
        None, description="Where the keys are; unset: discovery, then /.well-known/jwks.json."
    )
    issuer_tables: Annotated[tuple[IssuerTable, ...], NoDecode] = Field(
        (), description="Several issuers; only as [[issuers]] tables in the file."
    )
    algorithms: List = Field(
        DEFAULT_ALGORITHMS, description="Accepted `alg` values; only signatures with a public key."
    )
    require: List = Field((), description="Claims that must be present besides exp, iss and aud.")
    typ: List = Field((), description="Accepted `typ` values; at+jwt alone asks for RFC 9068.")
    leeway: FiniteFloat = Field(30.0, description="Seconds of clock difference forgiven, 0 … 300.")
    kid_optional: bool = Field(
        default=False,
        description="A token without kid may use the only compatible key.",
    )

    ttl: FiniteFloat = Field(
        _LIFETIMES.ttl, description="Seconds a key set is fresh when its issuer does not say."
    )
    ttl_min: FiniteFloat = Field(
        _LIFETIMES.ttl_min,
        description="Seconds; a shorter max-age would hammer the issuer.",
    )
    ttl_max: FiniteFloat = Field(
        _LIFETIMES.ttl_max,
        description="Seconds; a longer max-age keeps a removed key too long.",
    )
    refresh_at: FiniteFloat = Field(
        _LIFETIMES.refresh_at,
        description="Share of the TTL after which keys are refreshed (± 10 %), ahead of expiry.",
    )
    stale: FiniteFloat = Field(
        _LIFETIMES.stale,
        description="Seconds after the TTL for which keys still serve while the issuer is down.",
    )
    budget: int = Field(
        _LIMITS.budget, description="Forced refreshes at once: strangers can cause these."
    )
    budget_refill: FiniteFloat = Field(
        _LIMITS.refill, description="Seconds until one more forced refresh may happen."
    )
    negative_ttl: FiniteFloat = Field(
        _OPTIONS.negative_ttl, description="Seconds a kid that nobody knows is remembered as such."
    )
    negative_size: int = Field(
        _OPTIONS.negative_size, description="Unknown kids remembered per issuer: bounded memory."
    )
    wait: FiniteFloat = Field(
        _OPTIONS.wait, description="Seconds a request waits for the keys to be refreshed."
    )
    waiters: int = Field(
        _OPTIONS.waiters, description="Requests of a worker that may wait at once; others get 503."
    )
    backoff_min: FiniteFloat = Field(
        _LIMITS.backoff_min, description="Seconds, the longest pause after the first failure."
    )
    backoff_max: FiniteFloat = Field(
        _LIMITS.backoff_max, description="Seconds, the longest pause after any number of failures."
    )
    fetch_connect: FiniteFloat = Field(
        _OPTIONS.fetch_connect, description="Seconds to connect to the issuer."
    )
    fetch_timeout: FiniteFloat = Field(
        _OPTIONS.fetch_timeout, description="Seconds for one whole JWKS request, body included."
    )
    fetch_bytes: int = Field(
        _OPTIONS.fetch_bytes, description="Bytes of a JWKS answer; a larger one is refused."
    )
    fetch_keys: int = Field(
        _OPTIONS.fetch_keys, description="Keys of a JWKS answer; a longer list is refused."
    )
    lease: FiniteFloat = Field(
        _OPTIONS.lease, description="Seconds one worker may hold the right to fetch."
    )
    token_bytes: int = Field(
        _OPTIONS.token_bytes, description="Bytes of a token; a longer one is refused unread."
    )
    kid_chars: int = Field(_OPTIONS.kid_chars, description="Characters of a kid: bounded memory.")
    token_cache: int = Field(
        _OPTIONS.token_cache, description="Verified tokens a worker remembers; 0 turns it off."
    )

    redis_url: RedisURL | None = Field(
        None, description="Redis or Valkey; unset: an embedded Valkey on a private Unix socket."
    )
    redis_connect: FiniteFloat = Field(
        _OPTIONS.redis_connect,
        description="Seconds to connect to Redis: requests must not wait.",
    )
    redis_timeout: FiniteFloat = Field(
        _OPTIONS.redis_timeout, gt=0, description="Seconds for one Redis command; never unbounded."
    )
    poll: FiniteFloat = Field(
        _OPTIONS.poll, description="Seconds between looks at the version in Redis."
    )
    seal_keys: SealKeys = Field(
        (), description="Seals what is in Redis: the current key, then the previous (base64url)."
    )
    allow_unsealed: bool = Field(
        default=False,
        description="Run with Redis and no seal key: who writes there can mint tokens.",
    )
    snapshot: Path | None = Field(
        None, description="Directory for the last good keys: a start without Redis and issuer."
    )

    host: str = Field("127.0.0.1", description="Address of the public listener; loopback is safe.")
    port: Port = Field(8000, description="Port of the public listener; 0 takes any free one.")
    admin_host: str = Field("127.0.0.1", description="Address of /metrics, /livez and /readyz.")
    admin_port: Port = Field(9000, description="Port of the admin listener; 0 takes any free one.")
    workers: int = Field(
        default_factory=available_cpus,
        ge=1,
        le=1024,
        description="Worker processes; the default is the CPUs this process may use.",
    )
    grace: FiniteFloat = Field(
        25.0,
        ge=0,
        description="Seconds for requests in flight after SIGTERM; Kubernetes kills after 30.",
    )

    log: Style = Field(
        "auto", description="console, json, or auto: console on a terminal, json elsewhere."
    )
    log_claims: List = Field(
        (), description="Claims whose values a refusal's log line may show; none unless named."
    )

    @classmethod
    def load(cls) -> Self:
        """Read the environment and the file.

        Raises ConfigurationError with every problem: wrong values, names that do not exist, and
        contradictions between the values that are right.
        """
        path = os.environ.get(CONFIG, "")
        file, problems = _read_file(path)
        problems += _unknown_variables()
        environment = EnvSettingsSource(cls)()
        wording = _Wording(dict.fromkeys(file.keys() - environment.keys(), path))
        # Tables come from the file alone; a variable of that name is reported above.
        values = {**file, **environment, "issuer_tables": file.get("issuer_tables", ())}
        try:
            settings = cls(**values)
        except ValidationError as error:
            problems += [wording.of_error(detail) for detail in error.errors()]
            places = [detail["loc"] for detail in error.errors()]
            settings = cls(**_with_defaults(values, places))
            # What contradicts a value that nobody could read says nothing.
            wrong = {str(place[2] if len(place) > 2 else place[0]) for place in places}
            if ("issuer_tables",) in places:
                wrong |= {"issuer", "audience"}
            contradictions = [
                problem
                for problem in settings.contradictions()
                if not any(re.search(rf"\b{name}\b", problem, re.IGNORECASE) for name in wrong)
            ]
        else:
            contradictions = settings.contradictions()
        problems += [wording.of_problem(problem) for problem in contradictions]
        if problems:
            raise ConfigurationError(problems)
        return settings

    def issuers(self) -> tuple[Issuer, ...]:
        """The issuers that are trusted. Raises ConfigurationError when one of them cannot work."""
        if not self.issuer_tables:
            return (self._issuer(IssuerTable(issuer=self.issuer, jwks_url=self.jwks_url)),)
        return tuple(self._issuer(table) for table in self.issuer_tables)

    def options(
        self, *, redis_url: str | None = None, seal_keys: tuple[bytes, ...] = ()
    ) -> Options:
        """What keycache needs to know. The arguments stand in for settings that are not set.

        Raises ConfigurationError when the numbers contradict each other.
        """
        if self.redis_url is not None:
            redis_url = self.redis_url.get_secret_value()
        if self.redis_url is not None or self.seal_keys:
            seal_keys = tuple(key.get_secret_value() for key in self.seal_keys)
        return Options(
            redis_url=redis_url,
            seal_keys=seal_keys,
            allow_unsealed=self.allow_unsealed,
            snapshot=self.snapshot,
            redis_connect=self.redis_connect,
            redis_timeout=self.redis_timeout,
            poll=self.poll,
            lifetimes=self._lifetimes(),
            limits=self._limits(),
            lease=self.lease,
            negative_ttl=self.negative_ttl,
            negative_size=self.negative_size,
            wait=self.wait,
            waiters=self.waiters,
            fetch_connect=self.fetch_connect,
            fetch_timeout=self.fetch_timeout,
            fetch_bytes=self.fetch_bytes,
            fetch_keys=self.fetch_keys,
            token_bytes=self.token_bytes,
            kid_chars=self.kid_chars,
            token_cache=self.token_cache,
        )

    def contradictions(self) -> list[str]:
        """One sentence for each pair of settings that cannot both hold."""
        problems = self._issuer_problems()
        lifetimes = _problems_of(self._lifetimes)
        limits = _problems_of(self._limits)
        problems += [*lifetimes, *limits]
        defaults = {
            **(dict.fromkeys(Lifetimes.__slots__) if lifetimes else {}),
            **({"budget": None, "budget_refill": None} if limits else {}),
            **({"backoff_min": None, "backoff_max": None} if limits else {}),
        }
        # Options are made from both; a stand-in lets the rest of them be judged as well.
        judged = self.model_copy(
            update={name: type(self).model_fields[name].default for name in defaults}
        )
        problems += _problems_of(judged.options)
        if self.port == self.admin_port != 0 and self.host == self.admin_host:
            problems.append(f"admin_port: PORT and ADMIN_PORT are both {self.port}; change one")
        if self.token_bytes > HEADER_BYTES // 2:
            problems.append(
                f"token_bytes: TOKEN_BYTES ({self.token_bytes}) leaves too little of the"
                f" {HEADER_BYTES} bytes that a request's head may have; at most {HEADER_BYTES // 2}"
            )
        return problems

    def _lifetimes(self) -> Lifetimes:
        return Lifetimes(
            ttl=self.ttl,
            ttl_min=self.ttl_min,
            ttl_max=self.ttl_max,
            refresh_at=self.refresh_at,
            stale=self.stale,
        )

    def _limits(self) -> Limits:
        return Limits(
            budget=self.budget,
            refill=self.budget_refill,
            backoff_min=self.backoff_min,
            backoff_max=self.backoff_max,
        )

    def _issuer(self, table: IssuerTable) -> Issuer:
        def setting(name: str) -> Any:  # noqa: ANN401 - the setting has the field's type
            own = getattr(table, name)
            return getattr(self, name) if own is None else own

        return Issuer(
            issuer=table.issuer,
            audiences=setting("audience"),
            name=table.name,
            jwks_url=table.jwks_url,
            algorithms=setting("algorithms"),
            require=setting("require"),
            typ=setting("typ"),
            leeway=setting("leeway"),
            kid_optional=setting("kid_optional"),
        )

    def _issuer_problems(self) -> list[str]:
        if not self.issuer_tables:
            if not self.issuer:
                missing = {"issuer": "the exact `iss` of your tokens, as in https://id.example.com"}
                if not self.audience:
                    missing["audience"] = "what `aud` of your tokens calls this service"
                return [f"{name}: not set; it is {what}" for name, what in missing.items()]
            return _problems_of(self.issuers)
        problems = [
            f"{name}: set beside [[issuers]] tables; name it there or here"
            for name in ("issuer", "jwks_url")
            if getattr(self, name)
        ]
        made = []
        for number, table in enumerate(self.issuer_tables, 1):
            try:
                made.append(self._issuer(table))
            except ConfigurationError as error:
                problems += [f"[[issuers]] table {number}: {text}" for text in error.problems]
        for what, values in (
            ("name", [issuer.name for issuer in made]),
            ("issuer", [issuer.issuer for issuer in made]),
        ):
            problems += [
                f"[[issuers]]: {what} {value!r} stands in more than one table"
                for value in sorted({value for value in values if values.count(value) > 1})
            ]
        return problems


SETTING_NAMES = tuple(name for name in Settings.model_fields if name != "issuer_tables")
SECRETS = ("redis_url", "seal_keys")


class _Wording:
    """Turns problems into sentences that name the setting as the operator wrote it."""

    def __init__(self, from_file: dict[str, str]) -> None:
        self._from_file = from_file

    def name(self, setting: str) -> str:
        """`KEYCACHE_TTL`, or `ttl in keycache.toml` for a value that came from the file."""
        path = self._from_file.get(setting)
        return f"{setting} in {path}" if path else PREFIX + setting.upper()

    def of_problem(self, problem: str) -> str:
        """A sentence of keycache's own: its `setting:` and its SETTINGS by their full names."""
        setting, colon, rest = problem.partition(":")
        setting = "audience" if setting == "audiences" else setting
        if setting in SETTING_NAMES:
            problem = self.name(setting) + colon + rest
        names = "|".join(sorted(map(str.upper, SETTING_NAMES), key=len, reverse=True))
        return re.sub(rf"(?<![\w])({names})\b", rf"{PREFIX}\1", problem)

    def of_error(self, detail: ErrorDetails) -> str:
        """A pydantic error, with the value (unless it is a secret) and what would be right."""
        setting, *inner = detail["loc"]
        if setting == "issuer_tables":
            where = [f"table {item + 1}" if isinstance(item, int) else item for item in inner]
            name = " ".join(["[[issuers]]", *where])
            if detail["type"] == "extra_forbidden":
                hint = did_you_mean(str(inner[-1]), IssuerTable.model_fields)
                return f"{name}: there is no such key{hint}"
        else:
            name = self.name(str(setting))
        said = detail["msg"][0].lower() + detail["msg"][1:]
        if setting in SECRETS or detail["type"] == "missing":
            return f"{name}: {said}"
        return f"{name}: {str(detail['input'])[:60]!r} cannot be used; {said}"


def _with_defaults(values: dict[str, Any], places: list[tuple[int | str, ...]]) -> dict[str, Any]:
    """The values with defaults at `places`, so that the rest of them can be judged as well."""
    rest = deepcopy(values)
    for place in places:
        match place:
            case ("issuer_tables", int(number), str(key), *_):
                rest["issuer_tables"][number].pop(key, None)
            case (str(name), *_):
                field = Settings.model_fields[name]
                rest[name] = field.get_default(call_default_factory=True)
    return rest


def worded(problems: Iterable[str]) -> tuple[str, ...]:
    """Sentences of keycache's own, with the names that its settings have in the environment."""
    return tuple(map(_Wording({}).of_problem, problems))


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean TTL?` when a known name is close, else nothing."""
    close = get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _read_file(path: str) -> tuple[dict[str, Any], list[str]]:
    """The known keys of the file, and a sentence for each of the others."""
    if not path:
        return {}, []
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        return {}, [f"{CONFIG}: cannot read {path} ({error.strerror})"]
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        return {}, [f"{CONFIG}: {path} is not TOML ({error})"]
    known = {name: content[name] for name in SETTING_NAMES if name in content}
    if "issuers" in content:
        known["issuer_tables"] = content.pop("issuers")
    return known, [
        f"{name} in {path}: there is no such setting{did_you_mean(name, SETTING_NAMES)}"
        for name in content.keys() - known.keys()
    ]


def _unknown_variables() -> list[str]:
    known = [CONFIG, *(PREFIX + name.upper() for name in SETTING_NAMES)]
    return [
        f"{name}: there is no such setting{did_you_mean(name, known)}"
        for name in sorted(os.environ)
        if name.upper().startswith(PREFIX) and name.upper() not in known
    ]


def _problems_of(make: Callable[[], object]) -> list[str]:
    try:
        make()
    except ConfigurationError as error:
        return list(error.problems)
    return []
