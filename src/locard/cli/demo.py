"""`locard demo`: train, steal, judge, on real data in about a minute."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from locard.cli._options import SeedOption, progress, with_command, write

if TYPE_CHECKING:
    from locard.records import Comparison
    from locard.zoo.roles import Population, Suspect

SCHEMES = ("akh", "sac", "ipguard")
ALPHA = 0.05


def demo(
    out: Annotated[Path, typer.Option(help="Folder of models, fingerprints and reports.")] = Path("locard-demo"),
    seed: SeedOption = 0,
) -> None:
    """Train a victim, steal it in nine ways, train strangers, and judge each as an unknown."""
    import numpy as np

    from locard import engine
    from locard.engine.calibrate import calibrate_all
    from locard.engine.compare import compare_fingerprints
    from locard.models import load
    from locard.zoo import digits

    started = time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    with progress("training the victim, its copies and strangers") as bar:
        people = digits.build(out / "models", seed=seed, progress=bar)
    print(f"{len(people.built)} networks on scikit-learn's digits in {out / 'models'} ({_since(started)})")

    queries = people.queries
    np.savez(out / "queries.npz", x=queries.inputs, y=queries.labels)  # pyright: ignore[reportArgumentType]
    victim = load(people.victim)
    with progress("taking fingerprints"):
        fingerprints = [engine.extract(victim, scheme=name, data=queries, seed=seed) for name in SCHEMES]
    with progress("asking the reference models") as bar:
        fingerprints = calibrate_all(fingerprints, references=people.references, derived=people.derived, progress=bar)
    for fingerprint in fingerprints:
        fingerprint.save(out / f"{fingerprint.scheme}.locard")
    print(f"{len(fingerprints)} fingerprints of the victim, calibrated on {_count(people)} ({_since(started)})\n")

    (out / "reports").mkdir(exist_ok=True)
    verdicts: list[tuple[Suspect, Comparison]] = []
    with progress("judging the suspects"):
        for suspect in people.suspects:
            found = compare_fingerprints(fingerprints, str(suspect.path), alpha=ALPHA)
            verdicts.append((suspect, found))
            _report(found, out, suspect)
    _print(verdicts)
    print(f"\nA page for each suspect lies in {out / 'reports'}, such as {_page(out, verdicts[0][0])}")
    print(f"Done in {_since(started)}. Go on: locard verify {out / 'akh.locard'} {verdicts[0][0].path}")


def _report(found: Comparison, out: Path, suspect: Suspect) -> None:
    from locard import reports

    words = ["compare", str(out / "models" / "victim"), str(suspect.path), "--data", str(out / "queries.npz")]
    words += ["--references", str(out / "models" / "references"), "--derived", str(out / "models" / "derived")]
    words += ["--schemes", ",".join(SCHEMES), "--html", "report.html"]
    write(_page(out, suspect), reports.to_html(with_command(found, words)))


def _print(verdicts: list[tuple[Suspect, Comparison]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("suspect, as it was made", "truth", *(f"p {name}" for name in SCHEMES), "p together", "decision"):
        table.add_column(title, justify="right" if title.startswith("p ") else "left")
    for suspect, found in verdicts:
        single = [_p(verdict.evidence.p_value) for verdict in found.evidence]
        truth = suspect.truth if suspect.accepted else "failed theft"
        table.add_row(suspect.how, truth, *single, _p(found.p_value), found.decision)
    Console().print(table)
    thefts = [found for suspect, found in verdicts if suspect.truth == "derived" and suspect.accepted]
    strangers = [found for suspect, found in verdicts if suspect.truth == "independent"]
    caught, accused = (sum(f.decision == "derived" for f in group) for group in (thefts, strangers))
    floor = next(found.p_value_floor for _, found in verdicts)
    print(f"\n{caught} of {len(thefts)} thefts found, {accused} of {len(strangers)} strangers accused, "
          f"at alpha {ALPHA}; the smallest p that these references can give is {floor:.3g}")  # fmt: skip


def _count(people: Population) -> str:
    strata = ", ".join(f"{len(models)} {stratum}" for stratum, models in sorted(people.references.items()))
    return f"{sum(map(len, people.references.values()))} independent networks ({strata})"


def _page(out: Path, suspect: Suspect) -> Path:
    return out / "reports" / f"{suspect.path.name}.html"


def _p(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _since(start: float) -> str:
    return f"{time.perf_counter() - start:.0f} s"
