"""Every error of keycache in one tree: whose fault it is, and a stable code.

    KeycacheError
    ├── TokenError              the sender's fault (400, 401, 403); carries a Reason
    ├── UnavailableError        nobody can know right now (503); carries retry_after
    ├── JWKSError               the issuer's fault: its answer cannot be used as a key set
    ├── StoreError              the shared cache's fault: unreachable, too slow, or refusing
    ├── RecordError             a record in the shared cache is not one of ours, or was changed
    └── ConfigurationError      the operator's fault; lists every problem at once

A request meets only the first two. The other four are handled by the refresher (which then keeps
what it has) or stop the start. Anything else that is raised is a bug.
"""

from collections.abc import Sequence
from enum import StrEnum


class Reason(StrEnum):
    """Why a request was refused: the closed list used in answers, logs and metric labels alike."""

    # The request itself (400, RFC 6750 section 3.1 `invalid_request`).
    MALFORMED_HEADER = "malformed_header"
    MULTIPLE_TOKENS = "multiple_tokens"
    AMBIGUOUS_PATH = "ambiguous_path"
    UNKNOWN_REQUEST = "unknown_request"  # a proxy does not say clearly what it asks about
    # The token (401, `invalid_token`).
    NO_TOKEN = "no_token"
    TOO_LARGE = "too_large"
    MALFORMED = "malformed"
    UNSUPPORTED_HEADER = "unsupported_header"
    UNSUPPORTED_ALGORITHM = "unsupported_algorithm"
    WRONG_TYPE = "wrong_type"
    UNKNOWN_ISSUER = "unknown_issuer"
    MISSING_KID = "missing_kid"
    UNKNOWN_KEY = "unknown_key"
    BAD_SIGNATURE = "bad_signature"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    WRONG_AUDIENCE = "wrong_audience"
    MISSING_CLAIM = "missing_claim"
    INVALID_CLAIM = "invalid_claim"
    REVOKED = "revoked"
    # What the token allows (403, `insufficient_scope`).
    INSUFFICIENT_SCOPE = "insufficient_scope"
    FORBIDDEN = "forbidden"
    # What nobody is allowed (403, no challenge: no token would help).
    NO_RULE = "no_rule"
    UNTRUSTED_PROXY = "untrusted_proxy"


class KeycacheError(Exception):
    """The root: catch this to catch everything that keycache raises on purpose."""


class TokenError(KeycacheError):
    """The token, or the request that carries it, is refused.

    `reason` is the stable code. `details` is one fixed sentence for the sender: it never repeats
    anything that the sender wrote. `scope` is set for `insufficient_scope` only: the scopes needed,
    separated by spaces (RFC 6750 section 3).
    """

    # To refuse a token must not cost more than to accept one: no text before somebody reads it.
    __slots__ = ("details", "reason", "scope")

    def __init__(self, reason: Reason, details: str, *, scope: str = "") -> None:
        self.reason = reason
        self.details = details
        self.scope = scope

    def __str__(self) -> str:
        return f"{self.reason}: {self.details}"


class UnavailableError(KeycacheError):
    """The keys that would decide about this token cannot be known now; ask again later.

    `retry_after` is in seconds, at least 1 (RFC 9110 section 10.2.3 sends whole seconds).
    """

    def __init__(self, details: str, *, retry_after: float) -> None:
        super().__init__(details)
        self.details = details
        self.retry_after = max(1.0, retry_after)


class JWKSError(KeycacheError):
    """The issuer's answer is no usable key set. `code` is one of `FetchCode`."""

    def __init__(self, code: "FetchCode", details: str) -> None:
        super().__init__(f"{code}: {details}")
        self.code = code
        self.details = details


class FetchCode(StrEnum):
    """Why a fetch brought no usable key set: a closed list, used as a label."""

    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"
    HTTP_STATUS = "http_status"
    TOO_LARGE = "too_large"
    NOT_JSON = "not_json"
    NO_USABLE_KEY = "no_usable_key"
    TOO_MANY_KEYS = "too_many_keys"
    DISCOVERY = "discovery"
    INTERNAL = "internal"  # a bug of ours


class StoreError(KeycacheError):
    """The shared cache did not answer in time, or answered with an error."""


class StoreCode(StrEnum):
    """How the shared cache failed: a closed list, used as a label."""

    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"
    REFUSED = "refused"  # it answered, with an error: wrong password, no right, read-only, loading
    OTHER = "other"  # an answer that is none, or a bug in the client


class RecordError(KeycacheError):
    """A record in the shared cache is refused. `code` is one of `RecordCode`."""

    def __init__(self, code: "RecordCode", details: str) -> None:
        super().__init__(f"{code}: {details}")
        self.code = code


class RecordCode(StrEnum):
    """Why a record in the shared cache is refused: a closed list, used as a label."""

    TOO_LARGE = "too_large"
    FOREIGN = "foreign"  # not this format
    UNSEALED = "unsealed"
    NO_KEY = "no_key"  # sealed, and there is no seal key here
    SEAL = "seal"  # another key, another issuer, or changed
    CONTENT = "content"
    VERSION = "version"  # not the one it is kept under
    ROLLED_BACK = "rolled_back"
    FUTURE = "future"


class ConfigurationError(KeycacheError):
    """The settings contradict themselves or cannot work; `problems` has one sentence for each."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)
