"""The index spaces that the axes of a network's tensors are made of."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

Axis = list[int]


class Factors:
    """An axis is a product of factors, outermost first: 128 hidden units, or 4 heads of 8 coordinates each.

    Factors that must be permuted alike are tied into one; one that is later seen as a product is split wherever it
    stands; one whose order the input or output fixes, or that meets an unknown operation, is fixed.
    """

    def __init__(self) -> None:
        self.size: list[int] = []
        self._same: list[int] = []
        self._parts: list[tuple[int, int] | None] = []
        self._fixed: list[bool] = []

    def axis(self, size: int) -> Axis:
        """A new axis; one of size 1 has no factors."""
        return [] if size == 1 else [self._new(size, fixed=False)]

    def leaves(self, axis: Sequence[int]) -> Axis:
        """The factors of an axis as far as they are split by now."""
        found: Axis = []
        for one in axis:
            root = self._root(one)
            parts = self._parts[root]
            found += [root] if parts is None else self.leaves(parts)
        return found

    def fix(self, axis: Sequence[int]) -> None:
        """Forbid to permute these factors."""
        for leaf in self.leaves(axis):
            self._fixed[leaf] = True

    def is_fixed(self, leaf: int) -> bool:
        """Whether a leaf must stay in order."""
        return self._fixed[leaf]

    def extent(self, axis: Sequence[int]) -> int:
        """Product of the factors' sizes."""
        return prod(self.size[one] for one in axis)

    def tie(self, left: Sequence[int], right: Sequence[int]) -> None:
        """Let two products of the same size be permuted alike; what has no common factors is fixed."""
        ours, theirs = list(left)[::-1], list(right)[::-1]
        while ours and theirs:
            a, b = self._next(ours), self._next(theirs)
            if a == b:
                continue
            if self.size[a] == self.size[b]:
                self._same[b] = a
                self._fixed[a] |= self._fixed[b]
                continue
            (small, large), stack = ((a, b), theirs) if self.size[a] < self.size[b] else ((b, a), ours)
            if self.size[large] % self.size[small]:
                self.fix([a, b, *ours, *theirs])
                return
            first, rest = self._split(large, self.size[small])
            stack.append(rest)
            self._same[first] = small
            self._fixed[small] |= self._fixed[first]

    def _next(self, stack: Axis) -> int:
        # What was split since it was put there is taken apart now.
        stack += self.leaves([stack.pop()])[::-1]
        return stack.pop()

    def _split(self, leaf: int, first: int) -> tuple[int, int]:
        parts = (
            self._new(first, fixed=self._fixed[leaf]),
            self._new(self.size[leaf] // first, fixed=self._fixed[leaf]),
        )
        self._parts[leaf] = parts
        return parts

    def _new(self, size: int, *, fixed: bool) -> int:
        self.size.append(size)
        self._same.append(len(self._same))
        self._parts.append(None)
        self._fixed.append(fixed)
        return len(self.size) - 1

    def _root(self, one: int) -> int:
        while self._same[one] != one:
            one = self._same[one]
        return one
