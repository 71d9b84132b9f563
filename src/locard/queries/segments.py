"""Inputs with some of their parts masked, as LIME asks them: superpixels, columns of a table, words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from locard.errors import ParameterError, check_number, need
from locard.queries.base import Population, Queries, samplers, take
from locard.records import Access, Data
from locard.seeds import derive, generator

if TYPE_CHECKING:
    from locard.models import View

# Zest's settings of quickshift.
KERNEL, RATIO, CUT = 4, 0.2, 200.0
# The least squares of one reference take memory in the square of its segments.
MOST = 4096


@samplers.register("segments")
@dataclass(frozen=True, slots=True, kw_only=True)
class Segments:
    """Reference inputs cut into segments, each with many random masks (Zest's queries [1], after LIME [2]).

    An image is cut into superpixels by quickshift (kernel size 4, ratio 0.2, cut 200, in Lab colours; images without
    three channels as grey). Each column of a table is a segment, and each word of a text. A mask keeps each segment
    with probability 1/2; the first keeps all. What is masked gets the mean of the owner's data, of the channel or of
    the column; a masked word is left out. A column of category numbers has no sensible mean.

    Args:
        masks: masks for each reference.
        pieces: fewest segments of an image. On images of 32 x 32 and less quickshift at the paper's cut finds one or
            two, which says nothing; then the longest links of its tree are cut, as a smaller cut would.

    References are random inputs of the data; the released code takes the first 128. n, the number of queries, must be a
    multiple of `masks`; it counts masks that happen to be equal, which are asked once.

    The queries carry `masks` (references, masks, bytes) uint8, packed bits, one a segment; and, but for texts,
    `segments`, the number of the segment that each entry belongs to, (references, 1, h, w) or (references, columns)
    int16, and `fill`, what a masked entry becomes, (c, 1, 1) or (columns,).

    [1] Jia, Chen, Guan, Shamsabadi, Papernot. A Zest of LIME: Towards Architecture-Independent Model Distances. ICLR
    2022, with the settings of the released code. [2] Ribeiro, Singh, Guestrin. "Why Should I Trust You?" KDD 2016.
    """

    victim_access: ClassVar[Access] = Access(0)
    needs_labels: ClassVar[bool] = False
    needs_population: ClassVar[bool] = False

    masks: int = 1000
    pieces: int = 8

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_number("masks", self.masks, low=2, high=1_000_000)
        check_number("pieces", self.pieces, low=2, high=MOST)

    def draw(
        self, victim: View, data: Data, *, n: int | None, default: int, seed: int, population: Population | None
    ) -> Queries:
        """See `Sampler.draw`. Cost: no query to the victim. `inputs` are the references, unmasked."""
        return self.among(data, np.arange(len(data)), "references", n=n, default=default, seed=seed)

    def among(self, data: Data, rows: np.ndarray, what: str, *, n: int | None, default: int, seed: int) -> Queries:
        """Queries of which the references are some of those rows of the data.

        Args:
            data: whose mean is the fill.
            rows: row numbers.
            what: what the rows are, for a message.
            n: see `Sampler.draw`.
            default: see `Sampler.draw`.
            seed: see `Sampler.draw`.

        Raises:
            ParameterError: n is no multiple of `masks`, or too few rows have parts that can be masked.
            MissingExtraError: images need scikit-image.
        """
        if n is not None and n % self.masks:
            raise ParameterError(
                f"every reference is asked {self.masks} times, so --queries must be a multiple of {self.masks}; got "
                f"{n}: ask another number, or set another number of masks (--param masks=...)"
            )
        if data.domain.kind == "tokens":
            raise ParameterError(f"{data.name} holds tokens, and no token stands for a masked one; give texts instead")
        rows = take(
            generator(seed, "segments/references").permutation(rows[_divisible(data, rows)]),
            n=None if n is None else n // self.masks,
            default=max(1, default // self.masks),
            least=1,
            what=f"{what} of two segments or more",
            way_out=f"give more data, ask fewer --queries, or set fewer masks than {self.masks}",
        )
        inputs = data.domain.deliver(data.inputs[rows])
        extras = {}
        if data.domain.kind == "text":
            counts = np.array([len(text.split()) for text in inputs])
        else:
            image = data.domain.kind == "image"
            columns = np.tile(np.arange(data.domain.shape[0]), (len(rows), 1))
            segments = superpixels(inputs, data, pieces=self.pieces, seed=seed) if image else columns
            counts = segments.reshape(len(rows), -1).max(axis=1) + 1
            extras = {"segments": segments.astype(np.int16), "fill": _mean(data)}
        most = int(counts.max())
        if most > MOST:
            raise ParameterError(f"a reference of {data.name} has {most} segments; at most {MOST} can be told apart")
        masks = generator(seed, "segments/masks").integers(
            0, 256, (len(rows), self.masks, (most + 7) // 8), dtype=np.uint8
        )
        masks[:, 0] = 255
        # Bits of no segment are 0, so that masks that keep the same are equal.
        masks &= np.packbits(np.arange(8 * masks.shape[2]) < counts[:, None], axis=1)[:, None]
        return Queries(inputs=inputs, extras={"masks": masks, **extras})


def masked(queries: Queries, reference: int, kept: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
    """One reference under several masks.

    Args:
        queries: what `Segments.draw` gave.
        reference: number of the reference.
        kept: (m, segments) bool, true where a segment stays.
        out: where to write them, (m, *shape), or None for a new array.

    Returns:
        (m, *shape) inputs.
    """
    if out is None:
        out = np.empty((len(kept), *queries.inputs.shape[1:]), queries.inputs.dtype)
    if "segments" not in queries.extras:
        words = np.array(queries.inputs[reference].split(), dtype=object)
        out[:] = [" ".join(words[keep]) for keep in kept]
        return out
    out[:] = queries.extras["fill"]
    np.copyto(out, queries.inputs[reference], where=kept[:, queries.extras["segments"][reference]])
    return out


def superpixels(images: np.ndarray, data: Data, *, pieces: int, seed: int) -> np.ndarray:
    """Quickshift segments of images.

    Args:
        images: (n, c, h, w).
        data: the data they are from, which say the range of values.
        pieces: fewest segments of an image.
        seed: of the noise that breaks ties.

    Returns:
        (n, 1, h, w) int64, numbered from 0 in each image.
    """
    segmentation = need("skimage.segmentation", extra="images", why="cutting images into superpixels")
    low, high = data.domain.bounds or (float(data.inputs.min()), float(data.inputs.max()))
    result = np.empty((len(images), 1, *images.shape[2:]), np.int64)
    for index, image in enumerate(images):
        colours = (image.astype(np.float64).transpose(1, 2, 0) - low) / max(high - low, 1e-12)
        if colours.shape[2] != 3:
            colours = np.repeat(colours.mean(axis=2, keepdims=True), 3, axis=2)
        ties = derive(seed, f"segments/ties/{index}") % 2**31
        _, parent, length = segmentation.quickshift(
            colours, kernel_size=KERNEL, ratio=RATIO, max_dist=CUT, return_tree=True, rng=ties
        )
        result[index, 0] = _cut(np.asarray(parent), np.asarray(length), pieces)
    return result


def _cut(parent: np.ndarray, length: np.ndarray, pieces: int) -> np.ndarray:
    """The trees left when every link longer than CUT is cut, and then the longest, until there are enough."""
    root, length = parent.ravel().copy(), length.ravel()
    longest = np.argsort(-length, kind="stable")[: max(pieces, int((length > CUT).sum()))]
    root[longest] = longest
    while not np.array_equal(root, root[root]):
        root = root[root]
    return np.unique(root, return_inverse=True)[1].reshape(parent.shape)


def _divisible(data: Data, rows: np.ndarray) -> np.ndarray:
    """Which of the rows have two segments or more, (rows,) bool."""
    if data.domain.kind == "text":
        return np.array([len(text.split()) > 1 for text in data.inputs[rows]], bool)
    return np.full(len(rows), int(np.prod(data.domain.shape[-2:])) > 1)


def _mean(data: Data) -> np.ndarray:
    """The mean of each channel, (c, 1, 1), or column, (columns,), as a model may be given it."""
    axes = (0, 2, 3) if data.domain.kind == "image" else (0,)
    mean = data.inputs.mean(axis=axes, dtype=np.float64, keepdims=True)[0]
    if np.dtype(data.domain.dtype).kind in "iu":
        mean = np.rint(mean)
    return data.domain.deliver(mean).astype(data.domain.dtype)
