"""R's files of tables as R itself lays them out, written by hand for the tests of what reads them."""

import bz2
import gzip
import lzma
import struct
import zlib

PACK = {
    "gzip": lambda raw: gzip.compress(raw, mtime=0),
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "none": lambda raw: raw,
}


def whole(number):
    return struct.pack(">i", number)


def word(text, gp=1 << 6, code="utf-8"):
    raw = text.encode(code)
    return whole(9 | gp << 12) + whole(len(raw)) + raw


def symbol(name):
    return whole(1) + word(name)


def pairs(**items):
    return b"".join(whole(2 | 0x400) + symbol(name.replace("_", ".")) + one for name, one in items.items()) + whole(254)


def vector(kind, body, count, attributes=b""):
    return whole(kind | (0x200 if attributes else 0)) + whole(count) + body + attributes


def strings(*items, attributes=b""):
    return vector(16, b"".join(map(word, items)), len(items), attributes)


def wholes(*items, attributes=b""):
    return vector(13, b"".join(map(whole, items)), len(items), attributes)


def reals(*items):
    return vector(14, b"".join(struct.pack(">d", one) for one in items), len(items))


def factor(items, levels):
    codes = [levels.index(one) + 1 for one in items]
    return wholes(*codes, attributes=pairs(levels=strings(*levels), **{"class": strings("factor")}))


def frame(columns):
    """A table of columns that are serialised already."""
    named = pairs(names=strings(*columns), row_names=wholes(-(1 << 31), -3), **{"class": strings("data.frame")})
    return vector(19, b"".join(columns.values()), len(columns), named)


def header(version=3):
    return b"X\n" + whole(version) + whole(0x040202) + whole(0x030500) + (whole(5) + b"UTF-8" if version == 3 else b"")


def rda(tables, pack="xz", version=2):
    return PACK[pack](b"RDX%d\n" % version + header(version) + pairs(**tables))


def chunk(raw, pack="lzma"):
    if pack == "lzma":
        body = b"Z" + lzma.compress(raw, lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2, "preset": 6}])
    elif pack == "bzip2":
        body = b"2" + bz2.compress(raw)
    else:
        body = zlib.compress(raw)
    return whole(len(raw)) + body


def rdb(folder, tables, pack="lzma"):
    """`Rdata.rdx` and `Rdata.rdb`; gives the place of each table."""
    data, places = b"", {}
    for name, table in tables.items():
        piece = chunk(header() + table, pack)
        places[name] = (len(data), len(piece))
        data += piece
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "Rdata.rdb").write_bytes(data)
    index(folder, places)
    return places


def index(folder, places):
    names = pairs(names=strings(*places))
    variables = vector(19, b"".join(wholes(*place) for place in places.values()), len(places), names)
    both = vector(19, variables + whole(254), 2, pairs(names=strings("variables", "references")))
    (folder / "Rdata.rdx").write_bytes(gzip.compress(header() + both, mtime=0))
