"""Zip archives that models come in, judged by their directory alone before any member is read."""

from __future__ import annotations

import zipfile
from pathlib import Path, PurePosixPath

from locard.errors import ArtefactError

# Weights hardly shrink, and torch does not even try; what unpacks to more is made to fill a machine.
MOST_INFLATED = 100
SMALL = 64 << 20
MOST_MEMBERS = 100_000


def members(path: Path, where: str) -> list[str]:
    """Names of an archive's members.

    Args:
        path: the file.
        where: what it is, for messages.

    Raises:
        ArtefactError: it is missing, no zip archive, truncated, unpacks to far more than its size, or has two
            members of one name or a name that leads out of the archive.
    """
    try:
        size = path.stat().st_size
        # A device or pipe would be read without end, or never.
        if not path.is_file():
            raise ArtefactError(f"{where} is not a file")
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except OSError as error:
        raise ArtefactError(f"{where} cannot be read: {error.strerror or error}") from error
    # A damaged directory ends in other errors too (struct, Unicode, an unknown zip version), all of one meaning.
    except Exception as error:
        raise ArtefactError(f"{where} is truncated or no zip archive: {error}") from error
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > max(MOST_INFLATED * size, SMALL) or len(entries) > MOST_MEMBERS:
        raise ArtefactError(
            f"{where} has {size:,} bytes and unpacks to {unpacked:,} in {len(entries):,} members; at most "
            f"{MOST_INFLATED} times its size and {MOST_MEMBERS:,} members are read"
        )
    names = [entry.filename for entry in entries]
    for name in names:
        parts = PurePosixPath(name.replace("\\", "/"))
        if parts.is_absolute() or ".." in parts.parts or (parts.parts and parts.parts[0].endswith(":")):
            raise ArtefactError(f"{where} has a member {name!r} that leads out of the archive")
    if len(set(names)) < len(names):
        raise ArtefactError(f"{where} has two members of one name")
    return names
