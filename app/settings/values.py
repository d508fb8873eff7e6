"""The values of settings: from what an environment variable or TOML holds to what is used.

Sentences about a value that is wrong say what would be right, and never repeat a secret.
"""

import os
import re
from base64 import urlsafe_b64decode
from binascii import Error as Base64Error
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    SecretBytes,
    SecretStr,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)
from pydantic_core import PydanticCustomError

REDIS_SCHEMES = (
    *("redis", "rediss", "unix"),
    *("redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster"),
)
SECRET_BYTES = 65536
"""The most that a file with a secret may hold: far more than any key has."""

TEXTS = {"type": "array", "items": {"type": "string"}}
LIST_SCHEMA: dict[str, Any] = {"anyOf": [TEXTS, {"type": "string", "description": "With commas."}]}
SECRET_SCHEMA: dict[str, Any] = {
    "oneOf": [
        {"type": "string"},
        *(
            {
                "type": "object",
                "description": text,
                "properties": {key: {"type": "string"}},
                "required": [key],
                "additionalProperties": False,
            }
            for key, text in (
                ("file", "Read from this file, when the settings are loaded."),
                ("env", "Read from this environment variable of the service."),
            )
        ),
    ]
}


def wrong(message: str, **values: object) -> PydanticCustomError:
    """The error of a value: our own sentence, with `values` in its braces."""
    return PydanticCustomError("setting", message, values)


def all_wrong(errors: list[PydanticCustomError]) -> PydanticCustomError:
    """One error for several."""
    return wrong("{all}", all="; ".join(error.message() for error in errors))


def _split(value: object) -> object:
    """A comma-separated text as a list; anything else (a TOML array) as it is."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def _secret(value: object, info: ValidationInfo) -> str:
    """A text that stands here, in a file or in an environment variable; no line end at its end."""
    match value:
        case str(text):
            pass
        case {"file": str(name), **more} if not more:
            text = _secret_file(_beside_the_file(name, info))
        case {"env": str(name), **more} if not more:
            text = os.environ.get(name, "")
            if not text:
                raise wrong("the environment variable {name} is not set", name=name)
        case _:
            raise wrong('must be a text, { file = "…" } or { env = "…" }')
    return text.rstrip("\r\n")


def _secret_file(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(SECRET_BYTES + 1)
    except OSError as error:
        raise _unreadable(path, error) from None
    except UnicodeDecodeError:
        raise wrong("{path} holds no text", path=str(path)) from None
    if not text.strip() or len(text) > SECRET_BYTES:
        raise wrong("{path} is empty, or too long for a secret", path=str(path))
    return text


def _secrets(value: object, info: ValidationInfo) -> tuple[str, ...]:
    texts = _split(_secret(value, info) if isinstance(value, dict) else value)
    if not isinstance(texts, list):
        raise wrong("must be a list")
    return tuple(_secret(text, info) for text in texts)


def _seal_keys(value: object, info: ValidationInfo) -> tuple[bytes, ...]:
    """Each key decoded: 43 characters, or 44 with padding, as `keycache seal-key` prints them."""
    return tuple(_seal_key(number, text) for number, text in enumerate(_secrets(value, info), 1))


def _seal_key(number: int, text: str) -> bytes:
    try:
        if re.fullmatch(r"[A-Za-z0-9_-]{43}=?", text):
            return urlsafe_b64decode(text[:43] + "=")
    except Base64Error:
        pass
    raise wrong(
        "key {number} is not the base64url text of 32 bytes; `keycache seal-key` prints one",
        number=number,
    )


def _private_keys(value: object, info: ValidationInfo) -> tuple[bytes, ...]:
    keys = _secrets(value, info)
    for number, key in enumerate(keys, 1):
        if "PRIVATE KEY-----" not in key:
            raise wrong("key {number} is no private key in PEM", number=number)
    return tuple(key.encode() for key in keys)


def _redis_url(value: object, info: ValidationInfo) -> str:
    """The URL unchanged. Only its scheme can be judged here without repeating a secret."""
    url = _secret(value, info)
    if url.partition("://")[0] not in REDIS_SCHEMES:
        schemes = ", ".join(f"{scheme}://" for scheme in REDIS_SCHEMES)
        raise wrong(f"not a URL that begins with {schemes}")
    return url


def _headers(value: object, info: ValidationInfo) -> tuple[tuple[str, SecretStr], ...]:
    if not isinstance(value, dict):
        raise wrong('must be a table: { "X-Api-Key" = { env = "JWKS_API_KEY" } }')
    found, errors = [], []
    for name, secret in value.items():
        try:
            found.append((name, SecretStr(_secret(secret, info))))
        except PydanticCustomError as error:
            errors.append(wrong("{name}: {why}", name=name, why=error.message()))
    if errors:
        raise all_wrong(errors)
    return tuple(found)


def _beside_the_file(value: object, info: ValidationInfo) -> Path:
    """A path; one that is not absolute begins in the directory of the file that names it."""
    if not isinstance(value, str | Path) or not str(value):
        raise wrong("must be the path of a file, as a text")
    folder = info.context["folder"] if info.context else Path()
    return Path(folder, value).absolute()


def _unreadable(path: Path, error: OSError) -> PydanticCustomError:
    return wrong("{path} cannot be read ({why})", path=str(path), why=error.strerror)


def _readable(path: Path) -> Path:
    try:
        with path.open("rb"):
            return path
    except OSError as error:
        raise _unreadable(path, error) from None


def _networks(value: object) -> tuple[IPv4Network | IPv6Network, ...]:
    texts = _split(value)
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise wrong("must be a list of networks, as in 10.1.0.0/16 or ::1")
    found, errors = [], []
    for text in texts:
        try:
            found.append(_network(text))
        except PydanticCustomError as error:
            errors.append(error)
    if errors:
        raise all_wrong(errors)
    return tuple(found)


def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        network = ip_network(text, strict=False)
        address = ip_address(text.partition("/")[0])
    except ValueError:
        raise wrong("{text} is no network, as in 10.1.0.0/16", text=text) from None
    if network.network_address != address:
        message = "{text} has bits beyond its prefix; write {network}"
        raise wrong(message, text=text, network=str(network))
    if network.prefixlen == 0:
        raise wrong("{text} would trust everybody", text=text)
    return network


List = Annotated[tuple[str, ...], BeforeValidator(_split), WithJsonSchema(LIST_SCHEMA)]
Secret = Annotated[SecretStr, BeforeValidator(_secret), WithJsonSchema(SECRET_SCHEMA)]
RedisURL = Annotated[SecretStr, BeforeValidator(_redis_url), WithJsonSchema(SECRET_SCHEMA)]
_SecretList = WithJsonSchema(
    {"oneOf": [*SECRET_SCHEMA["oneOf"], {"type": "array", "items": SECRET_SCHEMA}]}
)
SealKeys = Annotated[tuple[SecretBytes, ...], BeforeValidator(_seal_keys), _SecretList]
PrivateKeys = Annotated[tuple[SecretBytes, ...], BeforeValidator(_private_keys), _SecretList]
Headers = Annotated[
    tuple[tuple[str, SecretStr], ...],
    PlainValidator(_headers),
    WithJsonSchema({"type": "object", "additionalProperties": SECRET_SCHEMA}),
]
_Path = WithJsonSchema({"type": "string", "format": "path"})
Location = Annotated[Path, BeforeValidator(_beside_the_file), _Path]
ReadableFile = Annotated[Path, BeforeValidator(_beside_the_file), AfterValidator(_readable), _Path]
Networks = Annotated[
    tuple[IPv4Network | IPv6Network, ...],
    PlainValidator(_networks),
    WithJsonSchema(LIST_SCHEMA),
]
Port = Annotated[int, Field(ge=0, le=65535)]


class Table(BaseModel):
    """What all tables of the file have in common: no key but the known, no value of another type.

    pydantic alone would take `"30"` and `true` for numbers, as an environment variable needs it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    @field_validator("*", mode="before")
    @classmethod
    def _has_its_type(cls, value: object, info: ValidationInfo) -> object:
        return of_type(cls.model_fields[info.field_name or ""].annotation, value)


def of_type(annotation: object, value: object) -> object:
    """A value of the file, when its type in TOML is the one of the setting."""
    kinds = _kinds(annotation)
    if bool in kinds and not isinstance(value, bool):
        raise PydanticCustomError("type", "must be true or false, without quotation marks")
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if kinds & {int, float} and not is_number:
        raise PydanticCustomError("type", "must be a number, without quotation marks")
    return value


def _kinds(annotation: object) -> set[object]:
    """The plain types that an annotation is made of: int for `Annotated[int, …] | None`."""
    if get_origin(annotation) is Annotated:
        return _kinds(get_args(annotation)[0])
    if isinstance(annotation, UnionType) or get_origin(annotation) is Union:
        return {kind for part in get_args(annotation) for kind in _kinds(part)}
    return {annotation}
