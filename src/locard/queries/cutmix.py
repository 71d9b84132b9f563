"""Images with a patch of another image in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from locard.errors import ParameterError, unknown
from locard.queries.base import Population, Queries, samplers, take
from locard.records import Access, Data
from locard.seeds import generator

if TYPE_CHECKING:
    from locard.models import View

# Of the released code: the patch's side as a share of the image's, and how far from an edge its centre may lie.
SIDE, EDGE = 0.2, 1 / 6
_PATCHES = ("corner", "textbook")


@samplers.register("cutmix")
@dataclass(frozen=True, slots=True, kw_only=True)
class CutMix:
    """Each query is an image with a rectangle cut from the next image in a random order (SAC-m's queries [1]).

    Such images lie off the data, where independent models differ more, and no model was trained on them.

    Args:
        patch: "corner", as SAC's released code: the sides are 0.2 of the image's, the centre lies in the outer sixth of
            both axes, and what sticks out of the image is cut off. "textbook", as CutMix [2]: the sides are
            sqrt(1 - λ) of the image's with λ uniform on (0, 1), the centre is anywhere.

    We differ from the released code in three ways: it takes the first 100 test images, we take random ones; it draws
    one place for a whole batch, we draw one for each image; its partners are a random permutation, which may pair an
    image with itself, ours never are. A patch has at least a pixel on either side of its centre, so that images of
    8 x 8 get one too.

    [1] Guan, Liang, He. Are You Stealing My Model? NeurIPS 2022. [2] Yun et al. CutMix. ICCV 2019, section 3.1.
    """

    victim_access: ClassVar[Access] = Access(0)
    needs_labels: ClassVar[bool] = False
    needs_population: ClassVar[bool] = False

    patch: str = "corner"

    def __post_init__(self) -> None:
        """Check the name of the patch."""
        if self.patch not in _PATCHES:
            raise unknown("patch", self.patch, _PATCHES)

    def draw(
        self, victim: View, data: Data, *, n: int | None, default: int, seed: int, population: Population | None
    ) -> Queries:
        """See `Sampler.draw`. Cost: no query to the victim.

        Raises:
            ParameterError: the data are no images, or fewer than two.
        """
        if data.domain.kind != "image":
            raise ParameterError(
                f"cutmix pastes patches into images; {data.name} holds {data.domain.text}: use the sampler 'random' "
                "(sac: variant=normal)"
            )
        if len(data) < 2:
            raise ParameterError(f"cutmix needs at least two images; {data.name} has {len(data)}: give more data")
        order = generator(seed, "cutmix/images").permutation(len(data))
        way_out = "give more data or ask fewer --queries"
        rows = take(order, n=n, default=default, least=2, what="images", way_out=way_out)
        partners = np.roll(order, -1)[: len(rows)]
        inside = self.patches(len(rows), data.domain.shape[1:], generator(seed, "cutmix/patches"))
        mixed = np.where(inside[:, None], data.inputs[partners], data.inputs[rows])
        return Queries(inputs=data.domain.deliver(mixed))

    def patches(self, n: int, size: tuple[int, ...], source: np.random.Generator) -> np.ndarray:
        """The patches of n images of that size: (n, h, w) bool, true inside."""
        share = np.full(n, SIDE) if self.patch == "corner" else np.sqrt(1 - source.random(n))
        axes = []
        for length in size:
            half = np.maximum((share * length).astype(np.int64) // 2, 1)
            places = np.arange(length)
            if self.patch == "corner":
                places = places[(places < length * EDGE) | (places > length * (1 - EDGE))]
            centre = source.choice(places, n)
            at = np.arange(length)
            axes.append((at >= (centre - half)[:, None]) & (at < (centre + half)[:, None]))
        rows, columns = axes
        return rows[:, :, None] & columns[:, None, :]
