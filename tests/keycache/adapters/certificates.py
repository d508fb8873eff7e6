"""A certificate authority of our own, for tests over real TLS."""

import datetime as dt
import ipaddress
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

HOSTS = x509.SubjectAlternativeName(
    [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]
)


class Authority:
    """Writes PEM files into `folder`: `ca.pem` is its own certificate."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("our authority")
        certificate = self._sign(self._name, self._key, authority=True)
        self.bundle = self._write("ca.pem", certificate)

    def issue(
        self, name: str, *, file: str = "leaf", password: bytes | None = None
    ) -> tuple[str, str]:
        """A certificate for this common name, and its key: the paths of two files."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(_name(name), key, authority=False)
        sealing: KeySerializationEncryption = NoEncryption()
        if password is not None:
            sealing = BestAvailableEncryption(password)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, sealing)
        return self._write(f"{file}.pem", certificate), self._write(f"{file}.key", pem)

    def joined(self, *files: str) -> str:
        """The path of one file with what these hold."""
        return self._write("joined.pem", b"".join(Path(file).read_bytes() for file in files))

    def server(self, *, asks_for_certificate: bool = False) -> ssl.SSLContext:
        """The TLS of a server that this authority vouches for, at 127.0.0.1 and localhost."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=self.bundle)
        context.load_cert_chain(*self.issue("server", file="server"))
        if asks_for_certificate:
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _sign(self, name: x509.Name, key: ec.EllipticCurvePrivateKey, *, authority: bool) -> bytes:
        now = dt.datetime.now(dt.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(HOSTS, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return certificate.public_bytes(Encoding.PEM)

    def _write(self, name: str, pem: bytes) -> str:
        path = self._folder / name
        path.write_bytes(pem)
        return str(path)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
