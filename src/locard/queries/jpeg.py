"""Images after a lossy compression."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from locard.errors import ParameterError, check_number, need
from locard.queries.base import Population, Queries, samplers, take
from locard.records import Access, Data
from locard.seeds import generator

if TYPE_CHECKING:
    from locard.models import View


@samplers.register("jpeg")
@dataclass(frozen=True, slots=True, kw_only=True)
class Jpeg:
    """Random images, compressed as JPEG and read again (SAC-JC's queries [1]).

    Corruption moves images off the data without a mixture or a gradient. Pillow's encoder with standard tables is
    used, without chroma subsampling for grey images, which have no chroma.

    Args:
        quality: of the compression, 1 to 95; 25 is the mildest of the five levels of the usual corruption benchmark
            [2], which the released code takes.

    [1] Guan, Liang, Wang, He. Sample Correlation for Fingerprinting Deep Face Recognition. IJCV 2024, after the
    released code. [2] Hendrycks, Dietterich. Benchmarking Neural Network Robustness to Common Corruptions. ICLR 2019.
    """

    victim_access: ClassVar[Access] = Access(0)
    needs_labels: ClassVar[bool] = False
    needs_population: ClassVar[bool] = False

    quality: int = 25

    def __post_init__(self) -> None:
        """Check the range."""
        check_number("quality", self.quality, low=1, high=95)

    def draw(
        self, victim: View, data: Data, *, n: int | None, default: int, seed: int, population: Population | None
    ) -> Queries:
        """See `Sampler.draw`. Cost: no query to the victim.

        Raises:
            ParameterError: the data are no grey or colour images with known bounds.
            MissingExtraError: Pillow is not installed.
        """
        domain = data.domain
        if domain.kind != "image" or domain.shape[0] not in (1, 3) or domain.bounds is None:
            raise ParameterError(
                f"jpeg compresses grey and colour images with known bounds; {data.name} holds {domain.text}: use the "
                "sampler 'random' (sac: variant=normal)"
            )
        order, way_out = generator(seed, "jpeg/images").permutation(len(data)), "give more data or ask fewer --queries"
        rows = take(order, n=n, default=default, least=2, what="images", way_out=way_out)
        low, high = domain.bounds
        levels = np.rint((data.inputs[rows] - low) / (high - low) * 255).astype(np.uint8)
        images = np.stack([compressed(image, self.quality) for image in levels]) / 255 * (high - low) + low
        if np.dtype(domain.dtype).kind in "iu":
            images = np.rint(images)
        return Queries(inputs=domain.deliver(images.astype(domain.dtype)))


def compressed(image: np.ndarray, quality: int) -> np.ndarray:
    """One image, compressed and read again.

    Args:
        image: (1 or 3, h, w) uint8.
        quality: 1 to 95.

    Returns:
        The same shape, uint8.
    """
    pillow = need("PIL.Image", extra="images", why="compressing images as JPEG")
    file = io.BytesIO()
    picture = pillow.fromarray(image[0]) if len(image) == 1 else pillow.fromarray(image.transpose(1, 2, 0))
    picture.save(file, "JPEG", quality=quality)
    again = np.asarray(pillow.open(file))
    return again[None] if again.ndim == 2 else again.transpose(2, 0, 1)
