"""Where the data sets lie that no package puts in a place of its own: one folder for all of them.

It is the folder that the variable LOCARD_DATA names, else `locard` in the user's data folder (XDG_DATA_HOME, or
`~/.local/share`).
"""

from __future__ import annotations

import os
from pathlib import Path

from locard.errors import ArtefactError

VARIABLE = "LOCARD_DATA"
# Where Debian's packages of R data put them, for whoever has R.
R_LIBRARY = Path("/usr/lib/R/site-library")


def home() -> Path:
    """The folder, there or not."""
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "locard"


def npm_package(name: str, version: str, *, of: str) -> Path:
    """The folder of an npm package that was installed below `home`.

    Args:
        name: the package's.
        version: what to install where it is missing.
        of: the data set, for the message.

    Raises:
        ArtefactError: it is not there; the message says how to get it.
    """
    folder = home() / "node_modules" / name
    if not folder.is_dir():
        raise ArtefactError(
            f"{of} needs the npm package {name}, which is not in {str(home())!r}: run `npm install --ignore-scripts "
            f"--prefix {home()} {name}@{version}` (`make data` gets every set), or name the folder in {VARIABLE}"
        )
    return folder


def r_package(name: str, *, of: str) -> Path:
    """The folder `data` of an R package as Debian packs it, unpacked below `home` or installed with R.

    Args:
        name: the R package's; Debian's is called r-cran-NAME.
        of: the data set, for the message.

    Raises:
        ArtefactError: it is in neither place; the message says how to get it without R.
    """
    for library in (home() / R_LIBRARY.relative_to("/"), R_LIBRARY):
        if (library / name / "data").is_dir():
            return library / name / "data"
    raise ArtefactError(
        f"{of} needs the data of the R package {name}, which are not in {str(home())!r}: run `apt-get download "
        f"r-cran-{name} && dpkg -x r-cran-{name}_*.deb {home()}`, which takes no R (`make data` gets every set), or "
        f"name the folder in {VARIABLE}"
    )
