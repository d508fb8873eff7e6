"""Chooser: the first of many patterns that matches a method and path, whatever their number.

The patterns of a method make a trie of segments; where a path could go on by its name or by `*`,
the two ways are merged into one, as when a finite automaton is made deterministic (the subset
construction). So a request takes one look into a dictionary for each segment.
"""

from collections.abc import Sequence

from keycache.errors import ConfigurationError
from keycache.rules.patterns import ANY, Pattern

STATES = 100_000
"""Merged ways at most. Their number is near that of the segments of all patterns, unless somebody
sets out to make it large.
"""


class Chooser:
    """Chooses among patterns by method and path. methods: of each pattern; empty for all.

    Raises ConfigurationError when the patterns have too many ways.
    """

    def __init__(self, patterns: Sequence[Pattern], methods: Sequence[frozenset[str]]) -> None:
        none = len(patterns)

        def start(method: str | None) -> _State:
            root = _Node(none)
            for number, (pattern, of) in enumerate(zip(patterns, methods, strict=True)):
                if not of or method in of:
                    root.add(pattern, number, none)
            return _Merger(root, none).start

        self._starts = {method: start(method) for method in set().union(*methods)}
        self._other = start(None)
        # What lies deeper than any pattern is cut off as one segment, however long it is.
        self._cuts = max((len(pattern.parts) for pattern in patterns), default=0) + 1

    def first(self, method: str, path: str) -> int:
        """The number, from 0, of the first pattern that matches; how many there are if none does.

        One slash at the end of the path makes no difference. None matches what begins with none.
        """
        state = self._starts.get(method, self._other)
        for part in path.split("/", self._cuts):
            state = state.named.get(part, state.other)
        return state.here


class _Node:
    """Of a trie: where some segments lead, and the first pattern that ends there."""

    __slots__ = ("any", "below", "here", "least", "named")

    def __init__(self, none: int) -> None:
        self.named: dict[str, _Node] = {}
        self.any: _Node | None = None
        self.here = none  # of the patterns that end here
        self.below = none  # of those that end here with `**`
        self.least = none  # of all that lead through here

    def add(self, pattern: Pattern, number: int, none: int) -> None:
        """Add a pattern, as the one of this number."""
        node = self
        node.least = min(node.least, number)
        for part in pattern.parts:
            if part == ANY:
                node.any = node.any or _Node(none)
                node = node.any
            else:
                node = node.named.setdefault(part, _Node(none))
            node.least = min(node.least, number)
        if pattern.is_open:
            node.below = min(node.below, number)
        else:
            node.here = min(node.here, number)


class _State:
    """Of the automaton: all nodes that the same segments lead to."""

    __slots__ = ("here", "named", "other")

    def __init__(self, here: int) -> None:
        self.here = here
        self.named: dict[str, _State] = {}
        self.other = self


class _Merger:
    """Makes the states of a trie. start: that of a path of which nothing is read."""

    def __init__(self, root: _Node, none: int) -> None:
        self._states: dict[tuple[frozenset[_Node], int], _State] = {}
        self.start = _State(none)
        self.start.named[""] = self._state([root], none)  # what stands before the first slash

    def _state(self, nodes: Sequence[_Node], below: int) -> _State:
        """The state of these nodes. below: the first pattern that takes whatever follows."""
        below = min([below, *(node.below for node in nodes)])
        nodes = [node for node in nodes if node.least < below]  # what else there is comes too late
        key = frozenset(nodes), below
        if key in self._states:
            return self._states[key]
        state = _State(min([below, *(node.here for node in nodes)]))
        self._states[key] = state
        if len(self._states) > STATES:
            raise ConfigurationError(["rules: there are too many ways to combine their *"])
        if not nodes:
            return state
        anyhow = [node.any for node in nodes if node.any is not None]
        state.other = self._state(anyhow, below)
        # An empty segment is not any segment. At the end of the path it is none at all.
        state.named[""] = _State(state.here)
        state.named[""].other = self._state([], below)
        for name in {name for node in nodes for name in node.named}:
            further = [node.named[name] for node in nodes if name in node.named]
            state.named[name] = self._state(further + anyhow, below)
        return state
