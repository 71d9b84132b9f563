"""How alike two states of one network are, index by index, and how alike a change along a group would leave them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np

from locard.weights.symmetries import Group, Place


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    """The cosine of two arrays of one shape, in [-1, 1]; 0 where one of them is all zeros."""
    a, b = one.ravel().astype(np.float64), other.ravel().astype(np.float64)
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / lengths if lengths else 0.0


def is_matrix(array: np.ndarray) -> bool:
    """Whether at least two of its axes are longer than 1; biases, gains and statistics are vectors."""
    return sum(size > 1 for size in array.shape) > 1


class Overlap:
    """Inner products of every unit of one state with every unit of another, by which any permutation is weighed.

    Args:
        group: of the network.
        reference: what is compared with.
        state: what the group would change.

    Attributes:
        places: numbers of the group's places that are weighed; a tensor with the group on both axes is left out.
        matrices: (places,), whether the tensor there is a matrix.
        grams: (places, copies, size, size), the reference's unit i with the state's unit j.

    Cost: one pass over the group's tensors, and size ** 2 numbers a place and copy.
    """

    def __init__(self, group: Group, reference: Mapping[str, np.ndarray], state: Mapping[str, np.ndarray]) -> None:
        acts = Counter(place.tensor for place in group.places)
        self.places = [k for k, place in enumerate(group.places) if acts[place.tensor] == 1]
        self.matrices = np.array([is_matrix(reference[group.places[k].tensor]) for k in self.places], np.bool_)
        grams, norms, lengths = [], [], []
        for k in self.places:
            place = group.places[k]
            ours, theirs = (units(one[place.tensor], group, place) for one in (reference, state))
            grams.append(ours @ theirs.transpose(0, 2, 1))
            norms.append((theirs**2).sum(axis=2))
            lengths.append(np.linalg.norm(ours))
        shape = (len(self.places), group.copies, group.size)
        self.grams = np.reshape(grams, (*shape, group.size))
        self._norms, self._lengths = np.reshape(norms, shape), np.reshape(lengths, shape[:1])

    def cosines(self, order: np.ndarray, factors: np.ndarray) -> np.ndarray:
        """Cosines of the reference with the state after a permutation and a scale.

        Args:
            order: (copies, size); unit i becomes what unit order[i] was.
            factors: (places, copies, size), what unit i is then multiplied by.

        Returns:
            (places,) in [-1, 1].
        """
        along = np.take_along_axis(self.grams, order[None, :, :, None], axis=3)[..., 0]
        norms = np.take_along_axis(self._norms, order[None], axis=2)
        lengths = self._lengths * np.sqrt((factors**2 * norms).sum(axis=(1, 2)))
        return (factors * along).sum(axis=(1, 2)) / np.maximum(lengths, 1e-300)


def units(array: np.ndarray, group: Group, place: Place) -> np.ndarray:
    """A tensor as (copies, size, entries of one unit) float64."""
    outside = int(np.prod(array.shape[: place.axis], dtype=np.int64))
    parts = array.astype(np.float64).reshape(outside, place.outer, group.size, -1)
    if group.copies == 1:
        parts = parts.reshape(1, outside * place.outer, group.size, -1).transpose(0, 2, 1, 3)
    else:
        parts = parts.transpose(1, 2, 0, 3)
    return parts.reshape(group.copies, group.size, -1)
