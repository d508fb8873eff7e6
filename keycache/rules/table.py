"""RuleTable: the rules in their order, and the first of them that matches a request.

A path can be read in more than one way: `/api/%2e%2e/admin` is below `/api` for one server and
`/admin` for the next, and `/ADMIN` is `/admin` for some. Whoever stands behind us may read it in
any of them. So a path that looks odd is not normalised, which would choose one reading: unless all
readings that servers are known to have (see readings.py) choose the same rule, the request is
refused.
"""

from collections.abc import Sequence

from keycache.errors import ConfigurationError
from keycache.issuer import Issuer
from keycache.rules.checks import order_problems, rule_problems, source_problems
from keycache.rules.chooser import Chooser
from keycache.rules.patterns import parse_pattern
from keycache.rules.readings import ambiguous, is_plain, readings
from keycache.rules.values import AUTHORIZATION, Rule, TokenSource


class RuleTable:
    """Rules in their order, of which the first that matches a request is chosen.

    issuers, sources: what there is, for the rules to name. Raises ConfigurationError, with every
    problem, each naming its rules by number (from 1) and path.
    """

    def __init__(
        self,
        rules: Sequence[Rule],
        *,
        issuers: Sequence[Issuer],
        sources: Sequence[TokenSource] = (AUTHORIZATION,),
    ) -> None:
        self.rules = tuple(rules)
        self._chosen = (*self.rules, None)  # by the number that a chooser says
        self.issuers = {issuer.issuer: issuer for issuer in issuers}
        self.sources = tuple(sources)
        problems = source_problems(self.sources)
        for number, rule in enumerate(self.rules, 1):
            found = rule_problems(rule, [issuer.name for issuer in issuers], self.sources)
            problems += [f"rule {number} ({rule}): {problem}" for problem in found]
        if problems:
            raise ConfigurationError(problems)
        patterns = [parse_pattern(rule.path) for rule in self.rules]
        caseless = [pattern.lower() for pattern in patterns]
        methods = [rule.all_methods for rule in self.rules]
        exact = Chooser(patterns, methods)
        self._exact = exact.first
        self._has_capitals = caseless != patterns
        self._caseless = Chooser(caseless, methods).first if self._has_capitals else exact.first
        # Where two rules differ in case alone, no path has one reading.
        problems = order_problems(self.rules, caseless, self._caseless)
        if problems:
            raise ConfigurationError(problems)

    def choose(self, method: str, path: str) -> Rule | None:
        """The rule of a request; None when there is none, and the request must be refused.

        path: as it was sent, without the query. Raises TokenError (ambiguous_path) when another
        reading of the path, or of the method's case, would choose otherwise.
        """
        if is_plain(path) and method.isupper():
            return self._chosen[self._number(method, path)]
        numbers = (
            self._number(word, reading)
            for reading in readings(path)
            for word in {method, method.upper()}
        )
        first = next(numbers)
        if any(number != first for number in numbers):
            raise ambiguous()
        return self._chosen[first]

    def _number(self, method: str, path: str) -> int:
        """Which rule is chosen by this reading of the path, in either case."""
        number = self._exact(method, path)
        lower = path.lower()
        if (lower != path or self._has_capitals) and self._caseless(method, lower) != number:
            raise ambiguous()
        return number
