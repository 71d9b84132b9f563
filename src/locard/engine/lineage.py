"""compare_weights(victim, suspect): were these weights made from those? A verdict with its error rate."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from locard.engine.extract import printable
from locard.errors import CalibrationError, check_number
from locard.evidence import stratified
from locard.records import BlockFinding, Decision, Evidence, Extent, Findings, Null, Party, Reference, WeightsVerdict
from locard.weights.files import Tensors, open_tensors
from locard.weights.lineage import Sampling, pair

if TYPE_CHECKING:
    from locard.weights.lineage.pair import Progress

Source = str | os.PathLike[str] | Tensors

# A block counts as shared where more than this share of its units is matched; no p-value rests on it.
MATCHED = 0.5
STATISTIC = "matched fraction"
_BLIND = (
    "A distilled or extracted copy shares no weights with its victim, so this test cannot find it: compare answers "
    "(locard compare)."
)
_STARTS = (
    "Two honest trainings from one initial file are related in just this way: ask what both started from before "
    "calling it theft."
)


def compare_weights(
    victim: Source,
    suspect: Source,
    *,
    references: Mapping[str, Sequence[Source]] | Sequence[Source] = (),
    alpha: float = 0.05,
    sampling: Sampling | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> WeightsVerdict:
    """Test whether a suspect's weights come from the victim's.

    Args:
        victim: a file or folder of weights, or tensors.
        suspect: likewise.
        references: models of the victim's architecture made without it; by stratum, or a list.
        alpha: share of innocent suspects that may be flagged.
        sampling: how much of the weights is looked at.
        seed: of what is looked at and of the random orders.
        progress: called with (done, wanted).

    Returns:
        The verdict; see `WeightsVerdict` for what decides.

    Raises:
        ArtefactError: a file that cannot be read.
        ParameterError: a model that cannot be laid out, or an alpha out of range.
        CalibrationError: a reference that is the victim or the suspect, or that has no block of the victim's shape.

    Cost: one pass over a sample of both models, and of each reference.
    """
    check_number("alpha", alpha, above=0, below=1)
    began = time.perf_counter()
    sampling = sampling or Sampling()
    groups = references if isinstance(references, Mapping) else {"unstated": references} if references else {}
    ours, theirs = _opened(victim), _opened(suspect)
    parties = _party(ours), _party(theirs)
    findings = pair(ours, theirs, sampling=sampling, seed=seed, progress=progress)
    null: list[Reference] = []
    for stratum, models in groups.items():
        for model in models:
            null.append(_reference(ours, _opened(model), stratum, parties, sampling, seed))
    evidence = stratified(null, findings.matched_fraction or 0.0, STATISTIC)
    return _verdict(findings, null, evidence, alpha, parties, time.perf_counter() - began)


def _opened(source: Source) -> Tensors:
    return open_tensors(source) if isinstance(source, str | os.PathLike) else source


def _party(tensors: Tensors) -> Party:
    """Named by a digest of its tensors' names, shapes and a few rows of each: who it is, at the price of a glance."""
    total = hashlib.sha256()
    for name, shape in tensors.shapes.items():
        total.update(f"{name}:{shape}".encode())
        if shape and shape[0]:
            rows = np.unique(np.linspace(0, shape[0] - 1, 3).astype(np.int64))
            total.update(np.ascontiguousarray(tensors.matrix(name, rows)).data)
    return Party(digest=total.hexdigest(), source=printable(tensors.source))


def _reference(
    ours: Tensors, model: Tensors, stratum: str, parties: tuple[Party, Party], sampling: Sampling, seed: int
) -> Reference:
    party = _party(model)
    for other, name in zip(parties, ("victim", "suspect"), strict=True):
        if party.digest == other.digest:
            raise CalibrationError(f"the reference {model.source} is the {name} itself: give models made without both")
    found = pair(ours, model, sampling=sampling, seed=seed)
    if found.matched_fraction is None:
        raise CalibrationError(
            f"the reference {model.source} has no block of the victim's shape, so its rank is worth nothing: give "
            "models of the victim's architecture"
        )
    return Reference(name=Path(party.source).name, digest=party.digest, stratum=stratum, score=found.matched_fraction)


def _verdict(
    findings: Findings,
    references: list[Reference],
    evidence: Evidence,
    alpha: float,
    parties: tuple[Party, Party],
    seconds: float,
) -> WeightsVerdict:
    modelled = _modelled(findings)
    p, floor, null = findings.order_p, findings.order_floor, Null(kind="exact")
    if evidence.p_value is not None and evidence.p_value_floor is not None:
        p = min(1.0, 2 * min(p, evidence.p_value))
        floor, null = min(1.0, 2 * min(floor, evidence.p_value_floor)), evidence.null
    shared = tuple(block.name for block in findings.blocks if _shared(block, alpha, len(findings.blocks)))
    decision: Decision = "derived" if p <= alpha else "no-evidence"
    if decision == "no-evidence" and not references and _telling(findings, modelled, alpha):
        decision = "uncalibrated"
    judged = [block for block in findings.blocks if block.log10_p is not None]
    extent: Extent = "none"
    if decision != "no-evidence":
        extent = "whole" if 2 * len([b for b in judged if b.name in shared]) > len(judged) else "partial"
    scores = [reference.score for reference in references]
    return WeightsVerdict(
        decision=decision,
        p_value=p,
        p_value_floor=floor,
        alpha=alpha,
        null=null,
        order_p=findings.order_p,
        match_p=evidence.p_value,
        modelled=modelled,
        matched_fraction=findings.matched_fraction,
        largest_reference=max(scores, default=None),
        extent=extent,
        shared=shared if decision != "no-evidence" else (),
        reasons=tuple(_reasons(findings, decision, evidence, scores, floor, alpha)),
        findings=findings,
        references=tuple(references),
        victim=parties[0],
        suspect=parties[1],
        seconds=seconds,
    )


def _modelled(findings: Findings) -> dict[str, float]:
    """log10 of what closed forms and decoys say; the blocks' best, times their number, for the match."""
    found: dict[str, float] = {}
    if findings.log10_order is not None:
        found["order"] = findings.log10_order
    logs = [block.log10_modelled for block in findings.blocks if block.log10_modelled is not None]
    if logs:
        found["match"] = min(0.0, min(logs) + float(np.log10(len(logs))))
    return found


def _telling(findings: Findings, modelled: dict[str, float], alpha: float) -> bool:
    """Whether units match so often that only references are wanting for a verdict."""
    if "match" in modelled:
        return modelled["match"] <= np.log10(alpha)
    return (findings.matched_fraction or 0.0) > MATCHED


def _shared(block: BlockFinding, alpha: float, blocks: int) -> bool:
    level = np.log10(alpha / blocks)
    order = block.log10_p if block.log10_p is not None else inf
    match = block.log10_modelled if block.log10_modelled is not None else -inf
    return bool(order <= level or ((block.matched or 0.0) > MATCHED and match <= level))


def _reasons(
    findings: Findings, decision: Decision, evidence: Evidence, scores: list[float], floor: float, alpha: float
) -> list[str]:
    reasons: list[str] = []
    matched = findings.matched_fraction
    if not findings.blocks:
        reasons.append(
            "No block of the suspect has the shape of one of the victim's: their weights cannot be compared."
        )
    elif decision == "derived":
        if findings.order_p <= alpha:
            reasons.append("Units that stand at the same place are more alike than random orders let them be, which no "
                           "shared data explain.")  # fmt: skip
        if evidence.p_value is not None and matched is not None and evidence.p_value <= alpha:
            reasons.append(f"What writes the units and what reads them agree on the same partners for {matched:.0%} of "
                           f"them; of {len(scores)} references the most is {max(scores):.0%}.")  # fmt: skip
        reasons.append(_STARTS)
    elif decision == "uncalibrated":
        reasons.append(
            f"The units stand in another order, yet {matched or 0:.0%} of them are matched to the same partner by what "
            "writes them and by what reads them. What that is worth only models made without the victim can tell: give "
            "them by --references."
        )
    else:
        reasons.append("Units at the same place are no more alike than in random orders.")
        if matched is not None and scores:
            reasons.append(f"{matched:.0%} of the units are matched alike; of {len(scores)} references the most is "
                           f"{max(scores):.0%}.")  # fmt: skip
    if decision == "no-evidence":
        reasons.append(_BLIND)
    if findings.missing:
        names = ", ".join(findings.missing[:3]) + (", ..." if len(findings.missing) > 3 else "")
        reasons.append(f"Not compared, as the suspect has none of their shape: {len(findings.missing)} blocks of the "
                       f"victim ({names}).")  # fmt: skip
    if floor > alpha:
        reasons.append(f"With so few references p cannot be below {floor:.3g}; alpha is {alpha:g}.")
    return reasons
