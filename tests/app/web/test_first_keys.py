"""A worker that starts waits for the first keys of every issuer, and for a bounded time."""

import asyncio

from app.facts_log import together
from app.web.first_keys import FirstKeys
from keycache.events import KeySetInstalled


def installed(issuer: str) -> KeySetInstalled:
    return KeySetInstalled(issuer, 7, 3, (), 1.0, 2.0, 3.0, 3, 0)


async def has_waited(keys: FirstKeys, *issuers: str) -> bool:
    """Whether somebody who waits goes on when the keys of these issuers arrive."""
    observe = together(keys)
    waiting = asyncio.create_task(keys.wait(60.0))
    await asyncio.sleep(0)
    for issuer in issuers:
        observe(installed(issuer))
    done, _ = await asyncio.wait([waiting], timeout=0.05)
    waiting.cancel()
    return bool(done)


async def test_wait_ends_when_the_keys_of_every_issuer_are_here() -> None:
    assert await has_waited(FirstKeys(["a", "b"]), "b", "a")


async def test_wait_goes_on_while_an_issuers_keys_are_missing() -> None:
    assert not await has_waited(FirstKeys(["a", "b"]), "a", "a")


async def test_keys_that_were_here_before_are_not_waited_for() -> None:
    keys = FirstKeys(["a"])
    together(keys)(installed("a"))

    async with asyncio.timeout(5.0):
        await keys.wait(60.0)


async def test_issuer_that_is_down_holds_up_nobody() -> None:
    async with asyncio.timeout(5.0):
        await FirstKeys(["a"]).wait(0.01)
