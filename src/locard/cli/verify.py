"""`locard verify`: a verdict on a suspect."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from locard.cli._options import (
    AccessOption,
    AlphaOption,
    BudgetOption,
    FailOption,
    HtmlOption,
    JournalOption,
    JsonOption,
    TrustOption,
    check_decision,
    deliver,
    journal_for,
    progress,
)


def verify(
    context: typer.Context,
    fingerprint: Annotated[Path, typer.Argument(metavar="FP.locard", help="The owner's fingerprint.")],
    suspect: Annotated[str, typer.Argument(metavar="SUSPECT", help="A model folder, file or URL.")],
    access: AccessOption = None,
    budget: BudgetOption = None,
    alpha: AlphaOption = 0.05,
    journal: JournalOption = None,
    fail_if: FailOption = None,
    as_json: JsonOption = False,
    html: HtmlOption = None,
    trust: TrustOption = False,
) -> None:
    """Was the suspect derived from the model whose fingerprint this is?"""
    from locard import engine
    from locard.fingerprint import Fingerprint
    from locard.models import load

    check_decision(fail_if)
    fp = Fingerprint.load(fingerprint)
    model = load(suspect, like=fp.domain, trust=trust)
    with progress("asking the suspect") as bar:
        verdict = engine.verify(fp, model, alpha=alpha, access=access, budget=budget,
                                journal=journal_for(model, journal), progress=bar)  # fmt: skip
    deliver(verdict, context, as_json=as_json, html=html, fail_if=fail_if)
