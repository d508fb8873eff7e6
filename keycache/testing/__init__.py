"""What your own tests need: an issuer on this machine that mints any token, and the time in hand.

    def test_reports_need_their_scope(keycache_issuer):  # a fixture that pytest knows by itself
        keycache_issuer.stand_in(auth)  # your application's JWTAuth, as it is in production
        _, response = app.test_client.get("/api/reports", headers=keycache_issuer.bearer())
        assert response.status == 403

Good, expired, forged: `mint()`, `mint(exp=0)`, `forge()`. Any claim and header: `mint(sub="ada",
roles=["admin"], aud=None, headers={"typ": "at+jwt"})`. New keys: `rotate()`, `remove(kid)`. The
issuer in trouble: `fail(503)`, `hang(60)`, `heal()`. The time: `clock.freeze()`,
`clock.advance(3600)`. Outside of pytest it is a context manager: `with FakeIssuer() as issuer`.

This package signs, which nothing else in keycache does; do not import it in what you deploy.
"""

from keycache.testing.clock import FakeClock
from keycache.testing.issuer import FakeIssuer

__all__ = ["FakeClock", "FakeIssuer"]
