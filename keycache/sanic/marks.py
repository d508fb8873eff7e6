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


def marked(handler: Handler, owner: object, method: str = "") -> Rule | None:
    """The rule by which `owner` guards this handler; None when it does not.

    method: which method of the class, where the handler is a class-based view.
    """
    view = getattr(handler, "view_class", None)
    for each in (getattr(view, method.lower(), None) if view and method else None, handler):
        found: tuple[object, Rule] | None = getattr(each, _MARK, None)
        if found is not None and found[0] is owner:
            return found[1]
    return None
