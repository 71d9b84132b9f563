"""One self-contained page of a bench: no network, no font of its own, and one short script, which its policy knows.

Every figure, plot and note is in the HTML; the script sorts, filters, chooses, and shows the single pairs behind a
cell, which the page holds as JSON. Names come from strangers: templates escape them, the JSON holds no character that
could end its element, and the script writes them as text.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

from locard.bench import panels, wording
from locard.bench.figures import Summary
from locard.bench.pairs import ESCAPES, Packed, cells, pack
from locard.bench.records import Records
from locard.errors import ParameterError
from locard.reports.numerals import plain
from locard.reports.rendering import environment

# Bytes of a page that a browser opens at once and a mail still carries.
LIMIT = 10_000_000
_NOTHING = Packed(text='{"cells":{}}', held=0, total=0)
# What the numbers of pairs take, which are written when the pairs have been packed.
_MARGIN = 2_000


def page(
    summary: Summary, records: Records, *, title: str, about: Mapping[str, str] | None = None, limit: int = LIMIT
) -> str:
    """A bench as a page that can be mailed, printed, and read without a network.

    Args:
        summary: of the records.
        records: whose judged pairs stand behind the cells.
        title: what was judged, for the first line.
        about: facts that no record holds, such as data set, date and machine, in this order.
        limit: bytes of the page. Where all pairs take more, each cell keeps as many as there is room for, and the page
            says so.

    Returns:
        A whole HTML document; the same arguments give the same text.

    Raises:
        ParameterError: the summary holds no standing, or an access that no level shows; or the page is larger than
            `limit` without a single pair.
    """
    if not summary.standings:
        raise ParameterError("a page is made of a summary with a standing at least; these records hold no entry")
    families: dict[str, list[str]] = {}
    for kind, family in summary.kinds.items():
        families.setdefault(family, []).append(kind)
    kinds, strata = [kind for members in families.values() for kind in members], list(summary.innocents)
    known = {
        "title": title,
        "about": dict(about or {}),
        "summary": summary,
        "standings": summary.standings,
        "words": wording,
        "families": families,
        "kinds": kinds,
        "strata": strata,
        "budgets": _budgets(summary),
        # A column that was refused to everybody says nothing; the notes say why.
        "fprs": [
            fpr for fpr in summary.fprs if any(one.tpr_at_fpr[fpr].value is not None for one in summary.standings)
        ],
        "curves": {i: panels.roc_path(s.roc) for i, s in enumerate(summary.standings) if s.roc is not None},
        "growths": panels.growths(summary.standings, summary.alphas),
        "query_ticks": panels.query_ticks(summary.standings),
        "reaches": {alpha: panels.reach(summary.standings, alpha) for alpha in summary.alphas},
    }
    bare = len(_render(known, _NOTHING).encode())
    if bare + _MARGIN > limit:
        raise ParameterError(
            f"the page takes {bare:,} bytes without its pairs; limit is {limit:,}: judge fewer entries"
        )
    keys = [(standing.entry, standing.budget) for standing in summary.standings]
    chosen = cells(records, standings=keys, kinds=kinds, strata=strata)
    return _render(known, pack(records, chosen, room=limit - bare - _MARGIN))


def _render(known: Mapping[str, Any], packed: Packed) -> str:
    from markupsafe import Markup

    script = resources.files("locard.bench").joinpath("templates/bench.js").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        environment("locard.bench")
        .get_template("bench.html.jinja")
        .render(
            **known,
            packed=packed,
            data=Markup(_data(known, packed)),  # noqa: S704
            script=Markup(script),  # noqa: S704
            script_hash=f"sha256-{digest}",
        )
    )


def _data(known: Mapping[str, Any], packed: Packed) -> str:
    """What the script reads: the names of lines and columns, and the pairs."""
    lines = [
        {"entry": plain(standing.entry), "asked": wording.queries(standing), "reliable": standing.reliable}
        for standing in known["standings"]
    ]
    head = {
        "columns": [plain(name) for name in known["kinds"] + known["strata"]],
        "lines": lines,
        "alphas": list(known["summary"].alphas),
        "levels": list(wording.LEVELS),
    }
    text = json.dumps(head, separators=(",", ":"), ensure_ascii=False, allow_nan=False).translate(ESCAPES)
    return f'{text[:-1]},"pairs":{packed.text}}}'


def _budgets(summary: Summary) -> list[int]:
    """The numbers of queries asked for, that which most entries were asked first, the rest in their order."""
    asked = [standing.budget for standing in summary.standings]
    commonest = max(sorted(set(asked)), key=asked.count)
    return [commonest, *sorted(set(asked) - {commonest})]
