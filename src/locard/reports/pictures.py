"""The most telling queries as a reader can see them: pictures, columns of a table, or text."""

from __future__ import annotations

import base64
import struct
import zlib
from dataclasses import dataclass

import numpy as np

from locard.records import Calibration, Domain, Exhibit
from locard.reports.numerals import plain

LARGEST = 256
LONGEST = 600
COLUMNS = 40
TOKENS = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One query.

    Args:
        number: 1, 2, ...
        victim: its answer.
        suspect: its answer.
        share: how many references answer as the victim does ("2 of 40"), or None without references.
        uri: the query as a picture, or "".
        width: of the picture, in its own pixels.
        text: the query as text, or "".
        cells: the query's values, for a table.
    """

    number: int
    victim: str
    suspect: str
    share: str | None
    uri: str = ""
    width: int = 0
    text: str = ""
    cells: tuple[str, ...] = ()

    @property
    def same(self) -> bool:
        """Whether suspect and victim answer alike."""
        return self.victim == self.suspect


def shown(exhibit: Exhibit, calibration: Calibration) -> tuple[Shown, ...]:
    """The queries of an exhibit, most telling first."""
    n = len(calibration.references)
    images = exhibit.domain.kind == "image" and exhibit.inputs.ndim == 4
    pixels = _pixels(exhibit.inputs, exhibit.domain) if images and len(exhibit.inputs) else None
    rows = []
    for i, (victim, suspect, share) in enumerate(zip(exhibit.victim, exhibit.suspect, exhibit.share, strict=True)):
        uri, width, text, cells = "", 0, "", ()
        if pixels is not None:
            uri, width = data_uri(pixels[i]), int(pixels[i].shape[1])
        elif exhibit.domain.kind == "tabular":
            cells = tuple(f"{value:.4g}" for value in exhibit.inputs[i].ravel()[:COLUMNS])
        elif exhibit.domain.kind == "tokens":
            tokens = exhibit.inputs[i].ravel()
            text = " ".join(map(str, tokens[:TOKENS])) + _rest(len(tokens), TOKENS, "tokens")
        else:
            whole = str(exhibit.inputs[i])
            text = plain(whole[:LONGEST]) + _rest(len(whole), LONGEST, "characters")
        rows.append(Shown(number=i + 1, victim=plain(victim), suspect=plain(suspect), uri=uri, width=width, text=text,
                          cells=cells, share=f"{round(share * n):,} of {n:,}" if n else None))  # fmt: skip
    return tuple(rows)


def columns(domain: Domain) -> tuple[str, ...]:
    """Names of a table's columns, as many as are shown."""
    n = int(np.prod(domain.shape, dtype=np.int64)) if domain.shape else 0
    names = domain.columns if len(domain.columns) == n else tuple(f"column {i + 1}" for i in range(n))
    return tuple(plain(name) for name in names[:COLUMNS])


def data_uri(pixels: np.ndarray) -> str:
    """A picture as the text of its PNG, for an `img` element.

    Args:
        pixels: (h, w) or (h, w, 3) uint8.
    """
    return "data:image/png;base64," + base64.b64encode(png(pixels)).decode()


def png(pixels: np.ndarray) -> bytes:
    """A PNG file of 8 bits a channel.

    Written here, because the base install has no imaging package and a page of evidence must not depend on an extra.

    Args:
        pixels: (h, w) uint8 for grey, or (h, w, 3) for red, green, blue.

    References:
        W3C, Portable Network Graphics (third edition), sections 5 and 9: chunks, and rows with filter type 0.
    """
    height, width = pixels.shape[:2]
    rows = np.ascontiguousarray(pixels, dtype=np.uint8).reshape(height, -1)
    filtered = np.concatenate([np.zeros((height, 1), np.uint8), rows], axis=1).tobytes()
    header = struct.pack(">IIBBBBB", width, height, 8, 2 if pixels.ndim == 3 else 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(filtered, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def _pixels(inputs: np.ndarray, domain: Domain) -> np.ndarray:
    """(k, c, h, w) as (k, h, w) or (k, h, w, 3) uint8; other numbers of channels than 3 are shown as their mean."""
    images = np.asarray(inputs, np.float64)
    low, high = domain.bounds if domain.bounds is not None else (float(images.min()), float(images.max()))
    images = np.clip((images - low) / (high - low if high > low else 1.0), 0, 1)
    step = -(-max(images.shape[2:]) // LARGEST)
    if step > 1:
        # Means of blocks, so that a page with a dozen photographs stays a page that can be mailed.
        down, across = (min(step, side) for side in images.shape[2:])
        height, width = images.shape[2] // down, images.shape[3] // across
        images = images[:, :, : height * down, : width * across]
        images = images.reshape(*images.shape[:2], height, down, width, across).mean(axis=(3, 5))
    images = images.transpose(0, 2, 3, 1) if images.shape[1] == 3 else images.mean(axis=1)
    return np.rint(images * 255).astype(np.uint8)


def _rest(n: int, most: int, unit: str) -> str:
    return "" if n <= most else f" ... ({n:,} {unit} in all)"
