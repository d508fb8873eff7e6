"""What can be done to a real token, by class; each way of doing it has a line here.

A Draft is a token in the making: its header and payload, how these are spelled, and with which key
they are signed. A Mutation changes one. Most are signed well afterwards, since it is the issuer's
own odd tokens, not the forged ones, that parsers disagree about.
"""

import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.keycache.core.forge import (
    ABSENT,
    NOW,
    b64,
    b64_json,
    claims,
    jwk,
    present,
    private_key,
    sign,
)

Bytes = Callable[[bytes], bytes]
Text = Callable[[str], str]
Changed = TypeVar("Changed", bytes, str)

ORDERS = {  # of the groups of the curves (NIST SP 800-186 section 3.2.1; RFC 8032 section 5.1)
    "ES256": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    "ES384": int(
        "FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF"
        "C7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973",
        16,
    ),
    "ES512": 2**521
    - 657877501894328237357444332315020117536923257219387276263472201219398408051703,
    "EdDSA": 2**252 + 27742317777372353535851937790883648493,
}


@dataclass
class Draft:
    """A good token of this algorithm, until it is mutated."""

    alg: str
    header: dict[str, Any] = field(default_factory=dict)
    payload: dict[str, Any] = field(default_factory=claims)
    header_json: list[Bytes] = field(default_factory=list)
    payload_json: list[Bytes] = field(default_factory=list)
    header_text: list[Text] = field(default_factory=list)
    payload_text: list[Text] = field(default_factory=list)
    signer: Callable[[bytes], bytes] | None = None
    signature: list[Bytes] = field(default_factory=list)
    signature_text: list[Text] = field(default_factory=list)
    whole: list[Text] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.header = {"alg": self.alg, "kid": self.alg, "typ": "JWT", **self.header}

    def text(self) -> str:
        """The compact serialisation."""
        header = json.dumps(present(self.header)).encode()
        payload = json.dumps(present(self.payload)).encode()
        signing_input = ".".join(
            [
                _changed(b64(_changed(header, self.header_json)), self.header_text),
                _changed(b64(_changed(payload, self.payload_json)), self.payload_text),
            ]
        )
        # What is not ASCII no signer can have signed, but a verifier may be shown.
        message = signing_input.encode("utf-8", "surrogatepass")
        signature = self.signer(message) if self.signer else sign(self.alg, message)
        last = _changed(b64(_changed(signature, self.signature)), self.signature_text)
        return _changed(f"{signing_input}.{last}", self.whole)


def _changed(value: Changed, changes: list[Callable[[Changed], Changed]]) -> Changed:
    for change in changes:
        value = change(value)
    return value


Mutation = Callable[[Draft], None]


def header(**members: object) -> Mutation:
    """Header members set, or taken away (ABSENT)."""
    return lambda draft: draft.header.update(members)


def payload(**members: object) -> Mutation:
    """Claims set, or taken away (ABSENT)."""
    return lambda draft: draft.payload.update(members)


def headers(name: str, *values: object) -> list[Mutation]:
    """One mutation for each value of a header member."""
    return [header(**{name: value}) for value in values]


def payloads(name: str, *values: object) -> list[Mutation]:
    """One mutation for each value of a claim."""
    return [payload(**{name: value}) for value in values]


def header_json(change: Bytes) -> Mutation:
    return lambda draft: draft.header_json.append(change)


def payload_json(change: Bytes) -> Mutation:
    return lambda draft: draft.payload_json.append(change)


def header_text(change: Text) -> Mutation:
    return lambda draft: draft.header_text.append(change)


def payload_text(change: Text) -> Mutation:
    return lambda draft: draft.payload_text.append(change)


def signature(change: Bytes) -> Mutation:
    return lambda draft: draft.signature.append(change)


def signature_text(change: Text) -> Mutation:
    return lambda draft: draft.signature_text.append(change)


def whole(change: Text) -> Mutation:
    return lambda draft: draft.whole.append(change)


def last_bits(text: str) -> str:
    """The text with a bit set that no octet has, where its length leaves such bits."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    spare = len(text) % 4 in (2, 3) and text[-1] in alphabet
    return text[:-1] + alphabet[alphabet.index(text[-1]) | 1] if spare else text


def to_length(remainder: int) -> Bytes:
    """White space behind a JSON text, until its length modulo 3 is this."""
    return lambda data: data + b" " * ((remainder - len(data)) % 3)


def recoded(encoding: str) -> Bytes:
    """A JSON text in another encoding."""
    return lambda data: data.decode("utf-8", "replace").encode(encoding, "surrogatepass")


def instead(data: bytes) -> Bytes:
    """Another text altogether."""
    return lambda _: data


def inserted(characters: str) -> Text:
    """These characters in the midst of a segment."""
    return lambda text: text[:8] + characters + text[8:]


SEGMENTS = (header_text, payload_text, signature_text)


def both(*mutations: Mutation) -> Mutation:
    def apply(draft: Draft) -> None:
        for mutation in mutations:
            mutation(draft)

    return apply


def add_member(name: str, value: str) -> Bytes:
    """A member more at the end of a JSON object, whatever is there already."""
    return lambda data: data[:-1] + f', "{name}": {value}}}'.encode()


def public_key_as_secret(encoded: Callable[[str], bytes]) -> Mutation:
    """HS256, the secret being the public key that everybody has."""

    def apply(draft: Draft) -> None:
        secret = encoded(draft.alg)
        draft.header["alg"] = "HS256"
        draft.signer = lambda message: hmac.digest(secret, message, hashlib.sha256)

    return apply


def pem(alg: str) -> bytes:
    return (
        private_key(alg).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )


def attackers_key(member: str, value: Callable[[str], object]) -> Mutation:
    """Signed with a key of the attacker, who names or encloses it in the header."""

    def apply(draft: Draft) -> None:
        draft.header[member] = value(draft.alg)
        draft.signer = lambda message: sign(draft.alg, message, 1)

    return apply


def other_algorithm(alg: str) -> Mutation:
    """The header names another algorithm than the one used; the kid stays."""
    return header(alg=alg)


def other_key_of(alg: str) -> Mutation:
    """Header and kid name another algorithm and its key than those used."""
    return header(alg=alg, kid=alg)


def ecdsa_numbers(change: Callable[[int, int, int], tuple[int, int]]) -> Mutation:
    """r and s of an ECDSA signature changed; `change` gets r, s and the order of the group."""

    def apply(draft: Draft) -> None:
        if not draft.alg.startswith("ES"):
            return
        order = ORDERS[draft.alg]

        def changed(data: bytes) -> bytes:
            size = len(data) // 2
            pair = int.from_bytes(data[:size], "big"), int.from_bytes(data[size:], "big")
            return b"".join(
                (number % 256**size).to_bytes(size, "big") for number in change(*pair, order)
            )

        draft.signature.append(changed)

    return apply


def as_der(draft: Draft) -> None:
    """An ECDSA signature in DER, as X.509 has it."""

    def der(data: bytes) -> bytes:
        half = len(data) // 2
        return encode_dss_signature(
            int.from_bytes(data[:half], "big"), int.from_bytes(data[half:], "big")
        )

    if draft.alg.startswith("ES"):
        draft.signature.append(der)


def s_plus_order(draft: Draft) -> None:
    """An Ed25519 signature whose S is not reduced (RFC 8032 section 5.1.7)."""
    if draft.alg == "EdDSA":
        draft.signature.append(
            lambda data: (
                data[:32]
                + (int.from_bytes(data[32:], "little") + ORDERS["EdDSA"]).to_bytes(64, "little")[
                    :32
                ]
            )
        )


def plus_modulus(draft: Draft) -> None:
    """An RSA signature that is not below the modulus (RFC 8017 section 5.2.2)."""
    key = private_key("RSA")
    assert isinstance(key, rsa.RSAPrivateKey)
    modulus = key.public_key().public_numbers().n

    def added(data: bytes) -> bytes:
        number = int.from_bytes(data, "big") + modulus
        return number.to_bytes((number.bit_length() + 7) // 8, "big")

    if draft.alg[:2] in ("RS", "PS"):
        draft.signature.append(added)


def unsigned(alg: str) -> Mutation:
    """No signature, and a header that says so."""
    return both(header(alg=alg), signature(lambda _: b""))


def deep(levels: int) -> Bytes:
    """A claim of so many lists within each other."""
    return add_member("deep", "[" * levels + "]" * levels)


def nested(text: str) -> str:
    """The token as the payload of another (RFC 7519 section 5.2)."""
    outer = (
        f"{b64_json({'alg': 'ES256', 'kid': 'ES256'})}.{b64(text.encode('utf-8', 'surrogatepass'))}"
    )
    return f"{outer}.{b64(sign('ES256', outer.encode()))}"


def json_serialisation(text: str) -> str:
    first, second, third = text.split(".")[:3]
    return json.dumps({"protected": first, "payload": second, "signature": third})


CLASSES: dict[str, list[Mutation]] = {
    # Nothing wrong with these
    "untouched": [lambda _: None],
    "benign": [
        header(typ=ABSENT),
        *headers("typ", "at+jwt", "jwt", "APPLICATION/AT+JWT", "application/jwt"),
        payload(aud=["api"]),
        payload(aud=["other", "api"]),
        payload(exp=NOW + 1),
        payload(exp=NOW + 1.5),
        payload(nbf=NOW),
        payload(iat=NOW, nbf=0),
        payload(scope="a b", roles=["x"], nested={"a": [1, None, True, 2.5]}),
        payload(name="Ærø", emoji="😀"),
        payload_json(lambda data: b" \n\t" + data + b"\r\n "),
        payload_json(lambda data: data.replace(b"alice", "Ærø 😀".encode())),
        payload_json(add_member("big", "1" * 300)),
        payload_json(add_member("lists", "[" * 20 + "]" * 20)),
    ],
    # Header
    "unknown header member": [
        header(foo="bar"),
        header(nonce=1),
        header(alg2="none"),
        header(ppt={"a": [1]}),
    ],
    "header names a key of no use": [
        header(jku="https://issuer.example/jwks"),
        header(x5u="https://issuer.example/cert"),
        header(x5t="AAAA"),
        header(x5c=["AAAA"]),
        header(jwk={"kty": "oct", "k": "AAAA"}),
        header(x5c=1),
        header(jwk="x"),
        header(jku=1),
    ],
    "header encloses the attacker's key": [
        attackers_key("jwk", lambda alg: jwk(alg, 1)),
        attackers_key("jku", lambda _: "https://attacker.example/jwks"),
        attackers_key("x5u", lambda _: "https://attacker.example/cert"),
        attackers_key("x5c", lambda _: ["AAAA"]),
    ],
    "crit": [
        *headers("crit", ["exp"], [], ["b64"], "exp", None, [""], [1], {}, 0),
        header(crit=["alg"]),
        header(crit=["foo"], foo=1),
        header(crit=["exp", "exp"], exp=NOW),
        header(crit=["b64"], b64=True),
        header(crit=["b64"], b64=False),
    ],
    "b64": headers("b64", False, True, "false", 0, None),
    "zip": [header(zip="DEF"), header(zip=None)],
    "enc": [header(enc="A128GCM"), header(enc=None)],
    "cty": headers("cty", "JWT", "application/json", "", 1, None),
    "typ of another purpose": headers("typ", "logout+jwt", "dpop+jwt", "secevent+jwt", "JOSE", "x"),
    "typ of a wrong kind": headers("typ", 1, None, [], {}, True),
    "kid missing": [header(kid=ABSENT)],
    "kid of a wrong kind": headers("kid", 1, None, [], {}, True, 1.5, ["ES256"]),
    "kid with odd characters": headers(
        "kid",
        *("", "x" * 128, "x" * 129, "../../../etc/passwd", "' OR '1'='1", "a\r\nFLUSHALL\r\n"),
        *("é", "\x00", "es256", "ES256 ", "http://127.0.0.1/", "${jndi:x}"),
    ),
    # Algorithm
    "unsigned": [unsigned(alg) for alg in ("none", "None", "NONE", "nOnE", "", "HS256")],
    "signed, called none": headers("alg", "none", "None", "NONE"),
    "alg of a wrong kind": headers(
        "alg", ABSENT, None, 1, True, [], ["RS256"], {}, "", "rs256", "RS1"
    ),
    "alg of another key": [
        other_algorithm(alg) for alg in ("ES256K", "HS256", "HS512", "Ed25519", "ESP256", "RSA1_5")
    ],
    "alg swapped": [
        *[other_key_of(alg) for alg in ("RS384", "PS384", "ES384")],
        *[other_algorithm(alg) for alg in ("RS384", "PS384", "ES384")],
    ],
    "public key as secret": [
        public_key_as_secret(pem),
        public_key_as_secret(lambda alg: pem(alg).strip()),
        public_key_as_secret(lambda alg: json.dumps(jwk(alg)).encode()),
        public_key_as_secret(lambda _: b""),
    ],
    # JSON
    "duplicate header member": [
        header_json(add_member("alg", '"none"')),
        header_json(add_member("typ", '"JWT"')),
        header_json(add_member("kid", '"other"')),
        header_json(lambda data: b'{"alg": "none", ' + data[1:]),
    ],
    "duplicate claim": [
        payload_json(add_member("sub", '"admin"')),
        payload_json(add_member("exp", str(NOW + 500))),
        payload_json(add_member("x", '{"a": 1, "a": 2}')),
        payload_json(add_member("\\u0073ub", '"admin"')),
        payload_json(lambda data: b'{"aud": "other", ' + data[1:]),
    ],
    "byte order mark": [
        payload_json(lambda data: b"\xef\xbb\xbf" + data),
        header_json(lambda data: b"\xef\xbb\xbf" + data),
    ],
    "UTF-16 or UTF-32": [
        *[
            payload_json(recoded(name))
            for name in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le")
        ],
        header_json(recoded("utf-16")),
        header_json(recoded("utf-32-be")),
    ],
    "bytes that are no UTF-8": [
        payload_json(lambda data: data.replace(b"alice", b"al\xffce")),
        payload_json(lambda data: data.replace(b"alice", b"\xc0\xaf")),
        header_json(lambda data: data.replace(b"JWT", b"J\xe9T")),
    ],
    "surrogates in UTF-8": [payload_json(lambda data: data.replace(b"alice", b"\xed\xa0\x80"))],
    "lone surrogate": [payload(sub="\ud800"), payload(x=["\udc00a"]), payload(**{"\udfff": 1})],
    "NaN and Infinity": [
        payload_json(add_member("constant", number)) for number in ("NaN", "Infinity", "-Infinity")
    ],
    "number out of range": [
        payload_json(add_member("number", number))
        for number in ("1e400", "-1e400", "9" * 400 + ".0")
    ],
    "integer of 5000 digits": [payload_json(add_member("digits", "9" * 5000))],
    "deep": [payload_json(deep(levels)) for levels in (33, 100, 2000)],
    "not quite JSON": [
        payload_json(lambda data: data[:-1] + b",}"),
        payload_json(lambda data: data + b"x"),
        payload_json(lambda data: data + b"{}"),
        payload_json(lambda data: data.replace(b'"', b"'")),
        payload_json(lambda data: b"/* */" + data),
        payload_json(lambda data: data.replace(b"alice", b"a\nb")),
        payload_json(lambda data: data.replace(b"alice", b"a\x00b")),
        payload_json(lambda data: data.replace(b"alice", b"a\\xb")),
        payload_json(lambda data: data.replace(b": ", b": +", 9)),
        payload_json(add_member("odd", "01")),
        payload_json(add_member("odd", ".5")),
        payload_json(add_member("odd", "0x1")),
        payload_json(lambda data: b"\x0c" + data),
        payload_json(lambda data: data + b"\xc2\xa0"),
        payload_json(lambda data: data + b"\x00"),
        header_json(lambda data: data[:-1] + b",}"),
        header_json(lambda data: data + b"x"),
    ],
    "not an object": [
        change(instead(text))
        for change in (header_json, payload_json)
        for text in (b"[]", b'"x"', b"null", b"1", b"true", b"", b"{}")
    ],
    # Claims
    "exp, over or not": payloads("exp", NOW, NOW - 1, NOW - 0.5, NOW + 10**6, 0, -1),
    "exp within this second": payloads("exp", NOW + 0.001, NOW + 0.5),
    "exp of a wrong kind": payloads(
        "exp", ABSENT, None, True, str(NOW + 300), f" {NOW + 300} ", "", "x", [], [NOW + 9], {}
    ),
    "exp after the year 9999": payloads("exp", 253402300800, 1e15, 1e308, 10**30),
    "nbf, past or future": payloads("nbf", NOW + 1, NOW - 1, 0, NOW + 10**6),
    "iat, past or future": payloads("iat", NOW + 1, NOW - 1, 0, NOW + 10**6),
    "nbf or iat within this second": [payload(nbf=NOW + 0.5), payload(iat=NOW + 0.5)],
    "nbf or iat before 1970": [
        *payloads("nbf", -1, -1e300),
        *payloads("iat", -1, -1e300),
    ],
    "nbf or iat of a wrong kind": [
        *payloads("nbf", None, True, str(NOW - 9), "x", [], {}, [NOW]),
        *payloads("iat", None, True, str(NOW - 9), "x", [], {}, [NOW]),
    ],
    "nbf or iat after the year 9999": [payload(nbf=1e15), payload(iat=1e15), payload(iat=10**400)],
    "aud, another or none": payloads(
        "aud", ABSENT, "other", "API", "ap", "apis", "", [], ["other"], "api "
    ),
    "aud of a wrong kind": payloads(
        "aud", None, 1, True, {"api": 1}, ["api", 1], ["api", None], [["api"]], ["api", ["x"]]
    ),
    "iss, another or none": payloads(
        "iss",
        *(ABSENT, "", "https://issuer.example/", "https://issuer.exampl"),
        *(
            "HTTPS://ISSUER.EXAMPLE",
            "https://issuer.example ",
            "https://issuer.example#",
            "https://issuer.example.com",
        ),
    ),
    "iss of a wrong kind": payloads(
        "iss", None, 1, True, ["https://issuer.example"], {"https://issuer.example": 1}
    ),
    "sub or jti of a wrong kind": [
        *payloads("sub", 1, None, True, [], ["alice"], {}),
        *payloads("jti", 1, None, True, [], ["alice"], {}),
    ],
    "client_id of a wrong kind": payloads("client_id", 1, None, [], {}),
    # Spelling
    "padded": [change(lambda text: text + "=" * (-len(text) % 4 or 4)) for change in SEGMENTS]
    + [signature_text(lambda text: text + "=")],
    "bits behind the last octet": [
        both(header_json(to_length(1)), header_text(last_bits)),
        both(payload_json(to_length(1)), payload_text(last_bits)),
        both(payload_json(to_length(2)), payload_text(last_bits)),
        signature_text(last_bits),
    ],
    "white space in base64url": [
        change(inserted(space)) for change in SEGMENTS for space in (" ", "\n", "\r\n", "\t")
    ],
    "white space around": [
        whole(lambda text: " " + text),
        whole(lambda text: text + "\n"),
        whole(lambda text: text + " "),
    ],
    "characters of no alphabet": [
        change(inserted(odd))
        for change in SEGMENTS
        for odd in ("!", "!!!!", "\x00", "%3D", "é", "\udcff", "\u2028", "…")
    ],
    "the other alphabet": [
        both(
            payload_json(lambda data: data.replace(b"alice", "ÿ?þ~ÿ?þ~".encode())),
            payload_text(lambda text: text.replace("-", "+").replace("_", "/")),
        ),
        signature_text(lambda text: text.replace("-", "+").replace("_", "/")),
    ],
    "impossible length": [
        change(lambda text: text + "A" * ((1 - len(text)) % 4))
        for change in (header_text, payload_text)
    ]
    + [signature_text(lambda text: text + "A" * ((1 - len(text)) % 4 or 4))],
    # Shape
    "number of segments": [
        whole(lambda text: text.rpartition(".")[0]),
        whole(lambda text: text.rpartition(".")[0] + "."),
        whole(lambda text: text + "."),
        whole(lambda text: text + ".AAAA"),
        whole(lambda text: text + ".AAAA.AAAA"),
        whole(lambda text: "." + text),
        whole(lambda text: text.split(".")[0]),
        whole(lambda text: "." + text.partition(".")[2]),
        whole(lambda text: "..".join(text.split(".")[::2])),
        whole(lambda text: text.replace(".", "..", 1)),
        whole(lambda _: ".."),
        whole(lambda _: ""),
        whole(lambda _: "." * 2000),
    ],
    "another serialisation": [
        whole(json_serialisation),
        whole(nested),
        whole(lambda text: f"Bearer {text}"),
        whole(lambda text: f'"{text}"'),
        whole(lambda text: f"{text},{text}"),
    ],
    "too long": [payload(x="x" * 6000), signature_text(lambda text: text + "A" * 8192)],
    # Signature
    "signature of a wrong length": [
        signature(lambda data: data[:-1]),
        signature(lambda data: data + b"\x00"),
        signature(lambda data: b"\x00" + data),
        signature(lambda data: data * 2),
        signature(lambda data: data[: len(data) // 2]),
        signature(lambda _: b"\x00"),
    ],
    "signature of nothing": [
        signature(lambda data: bytes(len(data))),
        signature(lambda data: b"\xff" * len(data)),
        signature(lambda data: bytes(len(data[1:])) + b"\x01"),
    ],
    "signature by another": [
        lambda draft: setattr(draft, "signer", lambda message: sign(draft.alg, message, 1)),
        lambda draft: setattr(draft, "signer", lambda message: sign(draft.alg, message + b"x")),
        signature(lambda data: bytes(octet ^ 1 for octet in data[:1]) + data[1:]),
        signature(lambda data: data[:-1] + bytes(octet ^ 1 for octet in data[-1:])),
    ],
    "ECDSA numbers out of range": [
        ecdsa_numbers(lambda _r, s, _n: (0, s)),
        ecdsa_numbers(lambda r, _s, _n: (r, 0)),
        ecdsa_numbers(lambda _r, _s, n: (n, n)),
        ecdsa_numbers(lambda _r, s, n: (n, s)),
        as_der,
    ],
    "ECDSA's other solution": [ecdsa_numbers(lambda r, s, n: (r, n - s))],
    "EdDSA's S not reduced": [s_plus_order],
    "RSA signature above the modulus": [plus_modulus],
}


def mutated(alg: str, *mutations: Mutation) -> str:
    """A token of this algorithm with these mutations, in this order."""
    draft = Draft(alg)
    for mutation in mutations:
        mutation(draft)
    return draft.text()
