"""RedisClient: one connection pool with a deadline on every call, and a breaker behind it.

Redis is never on the path of a request with a known key, yet a refresh that somebody waits for must
not spend its time on a Redis that hangs. So every call ends within `connect + timeout`; after a
failure the next calls fail at once for a short while; and a connection whose answer did not come in
time is closed, so that its late answer cannot be read by the next caller (CVE-2023-28858).

URLs: redis:// and rediss:// (TLS), unix://, and for several servers, comma-separated,
redis+sentinel://[user:password@]host:26379,host2:26379/service[/database] and
redis+cluster://[user:password@]host:7000,host2:7001 (rediss+… for TLS).
"""

import asyncio
from collections.abc import Sequence
from functools import cache
from hashlib import sha1
from importlib.resources import files
from time import perf_counter
from typing import Any
from urllib.parse import unquote, urlsplit

import redis
from redis import DriverInfo
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    NoScriptError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as ConnectionFailed
from redis.exceptions import TimeoutError as RedisTimeoutError

from keycache.errors import ConfigurationError, StoreCode, StoreError
from keycache.events import Observer, StoreAnswered, StoreChanged, StoreFailed

LONGEST_BREAK = 4.0
"""Seconds: after this at the latest a Redis that failed is tried again."""


SCHEMES = (
    *("redis", "rediss", "unix"),
    *("redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster"),
)

Connection = Redis | RedisCluster


class RedisClient:
    """Runs the Lua steps. connect, timeout: seconds. Raises StoreError and nothing else.

    The constructor opens no connection; it raises ConfigurationError for a URL it cannot use.
    """

    def __init__(self, url: str, connect: float, timeout: float, observer: Observer) -> None:
        self.connection = connection(url, connect, timeout)
        self._deadline = connect + timeout
        self._observer = observer
        self._failures = 0
        self._closed_until = 0.0
        self.up = True
        self._told: bool | None = None  # the first answer is news, good or bad

    async def step(
        self, name: str, keys: Sequence[str], arguments: Sequence[str | bytes | float]
    ) -> object:
        """Run `lua/{name}.lua` atomically, with `lua/own.lua` before it."""
        script, sha = _script(name)
        loop = asyncio.get_running_loop()
        if loop.time() < self._closed_until:
            raise StoreError("Redis failed a moment ago; not asked again yet")
        started = perf_counter()
        try:
            async with asyncio.timeout(self._deadline):
                try:
                    answer = await self.connection.evalsha(sha, len(keys), *keys, *arguments)
                except NoScriptError:
                    answer = await self.connection.eval(script, len(keys), *keys, *arguments)
        except Exception as error:
            # Not RedisError alone: an answer that is none makes the client raise anything.
            self._failures += 1
            pause = min(LONGEST_BREAK, 0.25 * 2 ** min(self._failures, 8))
            self._closed_until = loop.time() + pause
            details = f"{type(error).__name__}: {error}"[:200]
            self._observer(StoreFailed(_code(error), perf_counter() - started))
            self._say(up=False, details=details)
            raise StoreError(details) from error
        self._failures = 0
        self._observer(StoreAnswered(perf_counter() - started))
        self._say(up=True, details="")
        return answer

    def heard(self) -> None:
        """Redis was heard on another connection: it may be asked again at once."""
        self._closed_until = 0.0

    async def server(self) -> str:
        """Product and version of the server, for people. Raises StoreError."""
        try:
            async with asyncio.timeout(self._deadline):
                info = await self.connection.info("server")
        except Exception as error:
            raise StoreError(f"{type(error).__name__}: {error}"[:200]) from error
        product = info.get("server_name", "redis")
        return f"{product} {info.get(f'{product}_version', info.get('redis_version', '?'))}"

    async def aclose(self) -> None:
        """Close every connection."""
        try:
            async with asyncio.timeout(self._deadline):
                await self.connection.aclose()
                if isinstance(self.connection, Redis):
                    pool = self.connection.connection_pool
                    if isinstance(pool, SentinelConnectionPool):
                        for sentinel in pool.sentinel_manager.sentinels:
                            await sentinel.aclose()
        except (RedisError, OSError, TimeoutError):
            return

    def _say(self, *, up: bool, details: str) -> None:
        self.up = up
        if up != self._told:
            self._told = up
            self._observer(StoreChanged(up, details))


def connection(url: str, connect: float, timeout: float) -> Connection:
    """A client for this URL. Raises ConfigurationError, which repeats nothing of the URL: a slip in
    it can make a piece of the password look like a port.
    """
    scheme, separator, _ = url.partition("://")
    if not separator or scheme not in SCHEMES:
        raise ConfigurationError([f"redis_url: must begin with one of {'://, '.join(SCHEMES)}://"])
    options: dict[str, Any] = {
        "socket_connect_timeout": connect,
        "socket_timeout": timeout,
        "socket_keepalive": True,
        "health_check_interval": 0,
        # Once more, on a new connection: one that lay in the pool may have died unnoticed. Not
        # after a time-out, which would double the wait.
        "retry": Retry(NoBackoff(), 1, supported_errors=(ConnectionFailed,)),
        # As redis-py has it; left to itself, it reads its version from its files, each time anew.
        "driver_info": DriverInfo(lib_version=redis.__version__),
    }
    try:
        if "+" in scheme:
            return _of_several(url, options)
        if scheme == "unix":
            del options["socket_keepalive"]
            if not urlsplit(url).path:
                raise ConfigurationError(["redis_url: unix:// needs the path of the socket"])
        client = Redis.from_url(url, **options)
        # Made now, and thrown away, because it is what reads the options behind the question mark.
        client.connection_pool.connection_class(**client.connection_pool.connection_kwargs)
    except (ValueError, TypeError):
        problem = (
            "redis_url: cannot be read: port and database must be numbers, and in a password"
            " every character but letters and digits is written as %XX"
        )
        raise ConfigurationError([problem]) from None
    return client


def _code(error: Exception) -> StoreCode:
    """What kind of failure this is. redis-py has what the server refuses among the connections."""
    match error:
        case AuthenticationError() | AuthorizationError() | BusyLoadingError() | ResponseError():
            return StoreCode.REFUSED
        case TimeoutError() | RedisTimeoutError():
            return StoreCode.TIMEOUT
        case ConnectionFailed() | OSError():
            return StoreCode.UNREACHABLE
        case _:
            return StoreCode.OTHER


def _of_several(url: str, options: dict[str, Any]) -> Connection:
    parts = urlsplit(url)
    user, _, hosts = parts.netloc.rpartition("@")
    name, _, password = user.partition(":")
    options = options | {
        "username": unquote(name) or None,
        "password": unquote(password) or None,
        "ssl": parts.scheme.startswith("rediss"),
    }
    if parts.scheme.endswith("+cluster"):
        nodes = [ClusterNode(*_address(host, 6379)) for host in hosts.split(",")]
        options["retry"] = Retry(NoBackoff(), 1)  # once more, where a slot has moved to
        return RedisCluster(startup_nodes=nodes, **options)
    service, _, database = parts.path.strip("/").partition("/")
    if not service:
        raise ConfigurationError(["redis_url: redis+sentinel:// needs /service after the hosts"])
    timeouts = {name: options[name] for name in ("socket_connect_timeout", "socket_timeout")}
    options["db"] = int(database or 0)
    addresses = [_address(host, 26379) for host in hosts.split(",")]
    sentinel = Sentinel(addresses, sentinel_kwargs=timeouts, **options)  # type: ignore[no-untyped-call]
    master: Redis = sentinel.master_for(service)
    return master


def _address(host: str, default: int) -> tuple[str, int]:
    parts = urlsplit(f"//{host}")
    if not parts.hostname:
        raise ConfigurationError(["redis_url: a host is missing"])
    return parts.hostname, parts.port or default


@cache
def _script(name: str) -> tuple[str, str]:
    folder = files("keycache.adapters") / "lua"
    text = "".join((folder / f"{part}.lua").read_text(encoding="utf-8") for part in ("own", name))
    return text, sha1(text.encode(), usedforsecurity=False).hexdigest()
