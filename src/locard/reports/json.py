"""Reports for programs: plain JSON values, keys in a fixed order.

Schema 1. A later Locard may add keys; one that renames, removes or redefines a key raises `schema`. Numbers are finite;
one that is not is null.
"""

from __future__ import annotations

import math
from typing import Any

import locard
from locard.errors import ParameterError
from locard.records import Comparison, Cost, Notice, Power, Verdict
from locard.reports import wording

SCHEMA = 1


def to_json(result: Verdict | Comparison) -> dict[str, Any]:
    """A verdict or a comparison as plain JSON values, fit for `json.dumps(..., allow_nan=False)`.

    Args:
        result: what to report.

    Returns:
        For a verdict its decision, claim, score, p-value, null, power, costs, warnings and digests; for a comparison
        the combined decision and p-value, with a list of verdicts under `evidence`.

    Raises:
        ParameterError: neither a verdict nor a comparison.
    """
    if isinstance(result, Verdict):
        return _verdict(result)
    if isinstance(result, Comparison):
        return _comparison(result)
    raise ParameterError(f"a report is made of a Verdict or a Comparison; got {type(result).__name__}")


def _verdict(verdict: Verdict) -> dict[str, Any]:
    evidence, null = verdict.evidence, verdict.evidence.null
    return {
        "schema": SCHEMA,
        "locard": locard.__version__,
        "report": "verdict",
        "decision": verdict.decision,
        "claim": verdict.claim,
        "statement": wording.statement(verdict),
        "scheme": verdict.scheme,
        "score": _number(evidence.score),
        "statistic": evidence.statistic,
        "p_value": _number(evidence.p_value),
        "p_value_floor": _number(evidence.p_value_floor),
        "p_values": {stratum: _number(p) for stratum, p in sorted(evidence.p_values.items())},
        "null": {
            "kind": null.kind,
            "n": int(null.n),
            "strata": {stratum: int(n) for stratum, n in sorted(null.strata.items())},
            "deciding": null.deciding,
            "missing": list(null.missing),
        },
        "alpha": _number(verdict.alpha),
        "power": None if verdict.power is None else [_power(row) for row in verdict.power],
        "power_reason": verdict.power_reason,
        "queries": _cost(verdict.queries),
        "access": {"needed": verdict.access_needed, "used": verdict.access_used},
        "warnings": _notices(verdict.warnings),
        "not_tested": _notices(wording.not_tested(verdict)),
        "fingerprint": verdict.fingerprint.digest,
        "suspect": verdict.suspect.digest,
        "sources": {"fingerprint": verdict.fingerprint.source, "suspect": verdict.suspect.source},
        "seconds": _number(verdict.seconds),
        "reproduce": verdict.reproduce,
    }


def _comparison(comparison: Comparison) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "locard": locard.__version__,
        "report": "comparison",
        "decision": comparison.decision,
        "claim": "derived",
        "statement": wording.statement(comparison),
        "p_value": _number(comparison.p_value),
        "p_value_floor": _number(comparison.p_value_floor),
        "method": comparison.method,
        "alpha": _number(comparison.alpha),
        "queries": _cost(comparison.queries),
        "warnings": _notices(comparison.warnings),
        "not_tested": _notices(wording.not_tested(comparison)),
        "suspect": comparison.suspect.digest,
        "sources": {"suspect": comparison.suspect.source},
        "skipped": dict(sorted(comparison.skipped.items())),
        "evidence": [_verdict(verdict) for verdict in comparison.evidence],
    }


def _power(row: Power) -> dict[str, Any]:
    return {
        "kind": row.kind,
        "flagged": int(row.flagged),
        "n": int(row.n),
        "low": _number(row.low),
        "high": _number(row.high),
    }


def _number(value: float | None) -> float | None:
    # Also turns NumPy's floats into Python's, which `json` insists on.
    return None if value is None or not math.isfinite(value) else float(value)


def _cost(cost: Cost) -> dict[str, int]:
    return {"asked": int(cost.asked), "from_journal": int(cost.from_journal)}


def _notices(notices: tuple[Notice, ...]) -> list[dict[str, str]]:
    return [{"code": notice.code, "text": notice.text} for notice in notices]
