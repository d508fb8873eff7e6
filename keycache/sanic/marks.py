"""Marks: a decorated handler says by which rule it is guarded, to whoever must know beforehand."""

from collections.abc import Callable
from typing import Any

from keycache.rules import Rule

Handler = Callable[..., Any]

_MARK = "__keycache__"


def mark(handler: Handler, owner: object, rule: Rule) -> Handler:
    """The handler, which says from now on that `owner` guards it by `rule`; and so does what other
    decorators that use `functools.wraps` make of it.
    """
    setattr(handler, _MARK, (owner, rule))
    return handler


def marked(handler: Handler) -> tuple[object, Rule] | None:
    """Who guards this handler, by which rule; None for nobody."""
    found: tuple[object, Rule] | None = getattr(handler, _MARK, None)
    return found
