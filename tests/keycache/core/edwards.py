"""The points of small order on the two Edwards curves, computed from the curves' equations alone.

RFC 8032 section 5 gives the numbers. A point times the prime order of the group has only what is
left of its order: 1, 2, 4 (or 8 on edwards25519).
"""

from typing import NamedTuple

Point = tuple[int, int]


class Curve(NamedTuple):
    """a x² + y² = 1 + d x² y² modulo p, with a subgroup of prime order and a cofactor."""

    p: int
    a: int
    d: int
    order: int
    cofactor: int
    octets: int

    def add(self, one: Point, two: Point) -> Point:
        """The sum of two points: the addition law is complete on these curves."""
        (x1, y1), (x2, y2) = one, two
        cross = self.d * x1 * x2 * y1 * y2
        x = (x1 * y2 + x2 * y1) * pow(1 + cross, -1, self.p)
        y = (y1 * y2 - self.a * x1 * x2) * pow(1 - cross, -1, self.p)
        return x % self.p, y % self.p

    def times(self, number: int, point: Point) -> Point:
        """A multiple of a point."""
        result = (0, 1)
        while number:
            if number & 1:
                result = self.add(result, point)
            point = self.add(point, point)
            number >>= 1
        return result

    def root(self, square: int) -> int | None:
        """A square root modulo p, if there is one."""
        if self.p % 4 == 3:
            root = pow(square, (self.p + 1) // 4, self.p)
        else:
            root = pow(square, (self.p + 3) // 8, self.p)
            if root * root % self.p != square:
                root = root * pow(2, (self.p - 1) // 4, self.p) % self.p
        return root if root * root % self.p == square else None

    def small_order_points(self) -> set[Point]:
        """All points whose order divides the cofactor."""
        for y in range(2, 100):
            square = (y * y - 1) * pow(self.d * y * y - self.a, -1, self.p) % self.p
            x = self.root(square)
            if x is None:
                continue
            torsion = self.times(self.order, (x, y))
            multiples = {self.times(number, torsion) for number in range(self.cofactor)}
            if len(multiples) == self.cofactor:
                return multiples
        raise AssertionError("no point of the full small order below 100")

    def encodings(self, point: Point) -> set[bytes]:
        """Every way to write a point, or to write it wrongly: y or y + p, and either sign of x."""
        bits = 8 * self.octets - 1
        usable = 255 if bits == 255 else 448
        return {
            (y | sign << bits).to_bytes(self.octets, "little")
            for y in (point[1], point[1] + self.p)
            if y < 2**usable
            for sign in (0, 1)
        }


ED25519 = Curve(
    p=2**255 - 19,
    a=-1,
    d=-121665 * pow(121666, -1, 2**255 - 19) % (2**255 - 19),
    order=2**252 + 27742317777372353535851937790883648493,
    cofactor=8,
    octets=32,
)
ED448 = Curve(
    p=2**448 - 2**224 - 1,
    a=1,
    d=-39081,
    order=2**446 - 0x8335DC163BB124B65129C96FDE933D8D723A70AADC873D6D54A7BB0D,
    cofactor=4,
    octets=57,
)
