"""The Redis user of ops/README.md may do what the workers need, and nothing else."""

import re
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import NoPermissionError

from app.demo.issuer import DemoIssuer
from keycache.core.revocation import Kind
from keycache.errors import JWKSError
from keycache.events import Event, ignore
from keycache.issuer import Issuer
from keycache.runtime import Options, Runtime

README = Path(__file__).resolve().parents[2] / "ops" / "README.md"
SEAL_KEYS = (bytes(32),)


@pytest.fixture
def restricted_url(redis_url: str) -> str:
    rule = re.search(r"ACL (SETUSER keycache .*)", README.read_text(encoding="utf-8"))
    assert rule is not None
    with Redis.from_url(redis_url) as admin:
        admin.execute_command("ACL", *rule[1].split())
    return redis_url.replace("unix://", "unix://keycache:PASSWORD@")


async def test_workers_need_no_more_than_the_user_of_the_readme_may_do(restricted_url: str) -> None:
    events: list[Event] = []
    with DemoIssuer() as demo:
        issuer = Issuer(issuer=demo.url, audiences=(demo.audience,))
        options = Options(redis_url=restricted_url, seal_keys=SEAL_KEYS, revocation=True)
        workers = [Runtime([issuer], options, events.append) for _ in range(2)]
        for worker in workers:
            await worker.open()
        for _ in range(2):  # the second time around with a rotated key, heard of through Redis
            token = demo.mint()
            for worker in workers:
                assert demo.url == (await worker.authenticator.authenticate(token))["iss"]
            demo.rotate()
        await workers[0].revoke(issuer, Kind.JTI, "one")
        assert 1 == len(await workers[1].revoked(issuer))
        demo.fail(503)
        other = Runtime([issuer], options, ignore)
        with pytest.raises(JWKSError, match="discovery"):
            await other.warm(issuer, force=True)
        assert [True, True] == [worker.store_up for worker in workers]
        assert 2 == demo.jwks_fetches
        for worker in (*workers, other):
            await worker.close()


def test_the_user_of_the_readme_may_do_nothing_else(restricted_url: str) -> None:
    with Redis.from_url(restricted_url) as client:
        for command in (["FLUSHALL"], ["KEYS", "*"], ["GET", "other"], ["CONFIG", "GET", "*"]):
            with pytest.raises(NoPermissionError):
                client.execute_command(*command)
