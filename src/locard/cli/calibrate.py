"""`locard calibrate`: what a score is worth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from locard.cli._options import DerivedOption, ReferencesOption, TrustOption, check_suffix, grouped, progress
from locard.errors import ParameterError


def calibrate(
    fingerprint: Annotated[Path, typer.Argument(metavar="FP.locard", help="The fingerprint.")],
    references: ReferencesOption = None,
    derived: DerivedOption = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write here; in place by default.")] = None,
    trust: TrustOption = False,
) -> None:
    """Score models whose making is known, so that a suspect's score gets a p-value."""
    from locard import engine
    from locard.fingerprint import Fingerprint

    if not references:
        raise ParameterError("--references is missing: give models made independently of the victim")
    target = output or fingerprint
    if output is not None:
        check_suffix(output)
    fp = Fingerprint.load(fingerprint)
    with progress("asking the reference models") as bar:
        calibrated = engine.calibrate(
            fp, references=grouped(references), derived=grouped(derived), trust=trust, progress=bar
        )
    calibrated.save(target)
    rows = calibrated.calibration
    strata: dict[str, int] = {}
    for reference in rows.references if rows else ():
        strata[reference.stratum] = strata.get(reference.stratum, 0) + 1
    listed = ", ".join(f"{stratum} {n}" for stratum, n in sorted(strata.items()))
    floor = max(1 / (n + 1) for n in strata.values())
    print(f"{target}: {sum(strata.values())} references ({listed}), smallest p {floor:.3g}")
