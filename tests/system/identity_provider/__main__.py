"""Shows the provider at work: python -m tests.system.identity_provider"""

import json

import jwt

from tests.system.identity_provider import IdentityProvider


def main() -> None:
    """Get one token of each algorithm and print what is in it."""
    with IdentityProvider() as provider:
        print("issuer", provider.issuer)
        for algorithm in ("RS256", "ES256", "EdDSA"):
            token = provider.token("https://api.example", "read write", algorithm)
            print(json.dumps(jwt.get_unverified_header(token)))
            print(json.dumps(jwt.decode(token, options={"verify_signature": False}), indent=2))


main()
