"""Redis as it is run in production: Sentinel that fails over, a Cluster that loses a node, TLS."""

import datetime as dt
import ipaddress
import itertools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from redis.exceptions import RedisError

from app.demo.issuer import DemoIssuer
from keycache.adapters.redis_names import names
from keycache.issuer import KeySource
from tests.system.fleet.conftest import PATIENT, QUICK
from tests.system.fleet.fleet import Fleet, say
from tests.system.fleet.servers import RedisServer, free_ports, replication
from tests.system.service import eventually

SLOTS = 16384
SETTINGS: dict[str, object] = {**QUICK, **PATIENT}
DOWN_AFTER = 500  # ms of silence after which a Sentinel, or a Cluster, gives a server up

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def issuer() -> Iterator[DemoIssuer]:
    """An issuer nobody has asked yet."""
    with DemoIssuer() as issuer:
        yield issuer


def one_fetch_for_a_rotation(fleet: Fleet, issuer: DemoIssuer) -> None:
    fetches = issuer.jwks_fetches
    issuer.rotate()
    assert [200] == fleet.ask(issuer.mint()).statuses
    assert fetches + 1 == issuer.jwks_fetches


# -- Sentinel ------------------------------------------------------------------------------------


class Watched:
    """A master, its replica, and three Sentinels that watch them."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.master = stack.enter_context(RedisServer(folder / "a"))
        of_master = ("--replicaof", "127.0.0.1", str(self.master.port))
        self.replica = stack.enter_context(RedisServer(folder / "b", *of_master))
        config = (
            f"sentinel monitor keys 127.0.0.1 {self.master.port} 2\n"
            f"sentinel down-after-milliseconds keys {DOWN_AFTER}\n"
            "sentinel failover-timeout keys 1000\n"
        )
        self.sentinels = [
            stack.enter_context(RedisServer(folder / str(n), "--sentinel", config=config))
            for n in range(3)
        ]
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        self.url = f"redis+sentinel://{hosts}/keys"
        eventually(self._complete, 20)

    def _complete(self) -> bool:
        """Whether the Sentinels know of each other and of the replica."""
        for sentinel in self.sentinels:
            for what, count in (("REPLICAS", 1), ("SENTINELS", 2)):
                if len(sentinel.run("SENTINEL", what, "keys")) != count:
                    return False
        return str(self.replica.run("INFO", "replication")["master_link_status"]) == "up"


def test_sentinel_fails_over_and_nobody_notices(issuer: DemoIssuer, tmp_path: Path) -> None:
    with ExitStack() as stack:
        watched = Watched(tmp_path, stack)
        fleet = stack.enter_context(Fleet(tmp_path, [issuer], [watched.url] * 2, SETTINGS))
        assert [200] == fleet.ask(issuer.mint()).statuses
        assert 1 == issuer.jwks_fetches
        fleet.settle(issuer)
        watched.master.kill()
        slowest = [0.0]

        def failed_over() -> bool:
            asked = fleet.ask(issuer.mint())
            assert [200] == asked.statuses
            slowest.append(asked.seconds)
            return replication(watched.replica) == "master"

        seconds = eventually(failed_over, 25)
        healed = fleet.settle(issuer)
        one_fetch_for_a_rotation(fleet, issuer)
        record = names(KeySource(issuer.url, issuer.jwks_url)).record
        assert 1 == watched.replica.run("EXISTS", record)
        say(
            failed_over_after_seconds=seconds,
            healed_after_seconds=healed,
            slowest_ms=1000 * max(slowest),
        )


# -- Cluster -------------------------------------------------------------------------------------


class Cluster:
    """Three nodes without replicas, each with a third of the slots."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        ports = free_ports(6)
        self.nodes = [
            stack.enter_context(
                RedisServer(
                    folder / str(port),
                    *("--cluster-enabled", "yes", "--cluster-port", str(bus)),
                    *("--cluster-node-timeout", str(DOWN_AFTER)),
                    port=port,
                )
            )
            for port, bus in zip(ports[:3], ports[3:], strict=True)
        ]
        bounds = [SLOTS * n // 3 for n in range(4)]
        for node, (first, end) in zip(self.nodes, itertools.pairwise(bounds), strict=True):
            node.run("CLUSTER", "ADDSLOTSRANGE", first, end - 1)
        for port, bus in zip(ports[1:3], ports[4:], strict=True):
            self.nodes[0].run("CLUSTER", "MEET", "127.0.0.1", port, bus)
        hosts = ",".join(f"127.0.0.1:{port}" for port in ports[:3])
        self.url = f"redis+cluster://{hosts}"
        eventually(self.whole, 20)

    def whole(self) -> bool:
        """Whether every node sees all others and all slots served."""
        with suppress(RedisError):
            return all(
                {b"cluster_state:ok", b"cluster_known_nodes:3"} <= set(info.splitlines())
                for info in (node.run("CLUSTER", "INFO") for node in self.nodes)
            )
        return False

    def node_of(self, key: str) -> RedisServer:
        """The node that serves this key."""
        slot = self.nodes[0].run("CLUSTER", "KEYSLOT", key)
        return self.nodes[max(n for n in range(3) if slot >= SLOTS * n // 3)]


def test_cluster_loses_the_node_of_the_keys_and_nobody_notices(
    issuer: DemoIssuer, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        cluster = Cluster(tmp_path, stack)
        fleet = stack.enter_context(Fleet(tmp_path, [issuer], [cluster.url] * 2, SETTINGS))
        assert [200] == fleet.ask(issuer.mint()).statuses
        assert 1 == issuer.jwks_fetches
        one_fetch_for_a_rotation(fleet, issuer)
        name = names(KeySource(issuer.url, issuer.jwks_url))
        node = cluster.node_of(name.record)
        assert [1, 1] == [node.run("EXISTS", key) for key in (name.record, name.fence)]
        node.kill()
        eventually(lambda: (200, "degraded") in fleet.readiness(), 5)
        issuer.rotate()
        asked = fleet.ask(issuer.mint())
        assert [200] == asked.statuses
        node.start()
        back = eventually(cluster.whole, 15)
        healed = fleet.settle(issuer)
        one_fetch_for_a_rotation(fleet, issuer)
        say(
            rotated_without_it_ms=1000 * asked.seconds,
            cluster_back_after_seconds=back,
            healed_after_seconds=healed,
        )


# -- TLS -----------------------------------------------------------------------------------------


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "redis of the tests")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "certificate.pem", folder / "key.pem"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return paths


@contextmanager
def tls_server(folder: Path) -> Iterator[tuple[int, Path]]:
    """A server that speaks TLS only: its port, and the certificate to trust."""
    trusted, key = certificate(folder)
    (port,) = free_ports(1)
    arguments = (
        *("--tls-port", str(port), "--tls-auth-clients", "no"),
        *("--tls-cert-file", str(trusted), "--tls-key-file", str(key)),
        *("--tls-ca-cert-file", str(trusted)),
    )
    with RedisServer(folder / "redis", *arguments):
        yield port, trusted


def test_tls_keeps_the_fleet_together(issuer: DemoIssuer, tmp_path: Path) -> None:
    with tls_server(tmp_path) as (port, trusted):
        url = f"rediss://127.0.0.1:{port}?ssl_ca_certs={trusted}"
        with Fleet(tmp_path, [issuer], [url] * 2, {**SETTINGS, "WORKERS": 2}) as fleet:
            assert [200] == fleet.ask(issuer.mint()).statuses
            fleet.settle(issuer)
            assert 1 == issuer.jwks_fetches
            one_fetch_for_a_rotation(fleet, issuer)


def test_redis_whose_certificate_nobody_vouches_for_is_not_used(
    issuer: DemoIssuer, tmp_path: Path
) -> None:
    with (
        tls_server(tmp_path) as (port, _),
        Fleet(
            tmp_path, [issuer], [f"rediss://127.0.0.1:{port}"], {**SETTINGS, "WORKERS": 1}
        ) as fleet,
    ):
        assert [200] == fleet.ask(issuer.mint()).statuses
        eventually(lambda: (200, "degraded") in fleet.readiness(), 5)
        assert not fleet.redis_up()
