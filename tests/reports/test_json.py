from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest

import locard
from locard.errors import ParameterError
from locard.records import Comparison, Cost, Notice, Null, Power, Verdict
from locard.reports import to_html, to_json

VERDICT: dict[str, Any] = {
    "schema": int,
    "locard": str,
    "report": str,
    "decision": str,
    "claim": str,
    "statement": str,
    "scheme": str,
    "score": float,
    "statistic": str,
    "p_value": float | None,
    "p_value_floor": float | None,
    "p_values": dict,
    "null": dict,
    "alpha": float,
    "power": (list, type(None)),
    "power_reason": str | None,
    "queries": dict,
    "access": dict,
    "warnings": list,
    "not_tested": list,
    "fingerprint": str,
    "suspect": str,
    "sources": dict,
    "seconds": float,
    "reproduce": str | None,
}
COMPARISON: dict[str, Any] = {
    "schema": int,
    "locard": str,
    "report": str,
    "decision": str,
    "claim": str,
    "statement": str,
    "p_value": float | None,
    "p_value_floor": float | None,
    "method": str,
    "alpha": float,
    "queries": dict,
    "warnings": list,
    "not_tested": list,
    "suspect": str,
    "sources": dict,
    "skipped": dict,
    "evidence": list,
}


def read_back(value: dict[str, Any]) -> dict[str, Any]:
    """Through strict JSON and back, so that what is tested is what a program reads."""
    return json.loads(json.dumps(value, allow_nan=False))


def check(value: dict[str, Any], schema: dict[str, Any]) -> None:
    assert list(value) == list(schema)
    for key, kind in schema.items():
        assert isinstance(value[key], kind), (key, value[key])
    assert value["schema"] == 1
    assert value["locard"] == locard.__version__
    assert list(value["queries"]) == ["asked", "from_journal"]
    assert all(list(notice) == ["code", "text"] for notice in value["warnings"] + value["not_tested"])


def test_a_verdict(derived: Verdict) -> None:
    value = read_back(to_json(derived))
    check(value, VERDICT)
    assert (value["report"], value["decision"], value["claim"], value["scheme"]) == (
        "verdict",
        "derived",
        "derived",
        "akh",
    )
    assert value["score"] == derived.evidence.score
    assert value["p_value"] == pytest.approx(1 / 21)
    assert value["p_value_floor"] == pytest.approx(1 / 21)
    assert value["null"] == {
        "kind": "reference",
        "n": 60,
        "strata": {"disjoint": 20, "same-architecture": 20, "same-data": 20},
        "deciding": derived.evidence.null.deciding,
        "missing": ["foreign-theft"],
    }
    assert value["p_values"].keys() == value["null"]["strata"].keys()
    assert [row["kind"] for row in value["power"]] == ["finetune", "prune", "quantise"]
    assert all(list(row) == ["kind", "flagged", "n", "low", "high"] for row in value["power"])
    assert value["power_reason"] is None
    assert value["queries"] == {"asked": 60, "from_journal": 0}
    assert value["access"] == {"needed": "LABELS", "used": "LABELS"}
    assert re.fullmatch(r"[0-9a-f]{64}", value["fingerprint"])
    assert re.fullmatch(r"[0-9a-f]{64}", value["suspect"])
    assert "missing-stratum" in {notice["code"] for notice in value["warnings"]}


def test_an_uncalibrated_verdict(uncalibrated: Verdict) -> None:
    value = read_back(to_json(uncalibrated))
    check(value, VERDICT)
    assert value["decision"] == "uncalibrated"
    assert (value["p_value"], value["p_value_floor"], value["p_values"]) == (None, None, {})
    assert (value["null"]["kind"], value["null"]["n"], value["null"]["strata"]) == ("none", 0, {})
    assert value["power"] is None
    assert "--derived" in value["power_reason"]


def test_a_comparison(comparison: Comparison) -> None:
    value = read_back(to_json(comparison))
    check(value, COMPARISON)
    assert (value["report"], value["method"]) == ("comparison", "conformal rank")
    assert [verdict["scheme"] for verdict in value["evidence"]] == ["akh", "random+labels+hamming"]
    for verdict in value["evidence"]:
        check(verdict, VERDICT)
        assert verdict["suspect"] == value["suspect"]
    assert list(value["skipped"]) == ["ipguard"]


def test_numpy_numbers_become_plain_ones_and_no_number_is_nan(make: Callable[..., Verdict]) -> None:
    verdict = make(
        cast("float", np.float32(0.5)),
        references={"disjoint": [0.1, 0.2]},
        alpha=cast("float", np.float64(0.05)),
        power=(Power(kind="prune", flagged=np.int64(1), n=np.int64(2), low=np.float32(0.1), high=np.float64(1)),),  # pyright: ignore[reportArgumentType]
        queries=Cost(asked=cast("int", np.int64(7)), from_journal=0),
        seconds=float("nan"),
    )
    value = read_back(to_json(replace(verdict, evidence=replace(verdict.evidence, score=float("inf")))))
    assert (value["score"], value["seconds"], value["queries"]["asked"]) == (None, None, 7)
    assert value["power"] == [{"kind": "prune", "flagged": 1, "n": 2, "low": pytest.approx(0.1), "high": 1.0}]


def test_keys_have_one_order_whatever_order_the_records_had(make: Callable[..., Verdict]) -> None:
    verdict = make(0.5, references={"same-data": [0.1], "disjoint": [0.2]})
    turned = replace(
        verdict,
        evidence=replace(
            verdict.evidence,
            p_values=dict(reversed(verdict.evidence.p_values.items())),
            null=replace(verdict.evidence.null, strata=dict(reversed(verdict.evidence.null.strata.items()))),
        ),
    )
    assert json.dumps(to_json(turned)) == json.dumps(to_json(verdict))


def test_an_exact_null_and_a_strange_name(make: Callable[..., Verdict]) -> None:
    verdict = make(warnings=(Notice(code="x", text="caf\udce9 \x1b[31m"),))
    verdict = replace(verdict, evidence=replace(verdict.evidence, null=Null(kind="exact"), p_value=0.5))
    value = json.dumps(to_json(verdict), allow_nan=False)
    assert value.isascii()
    assert json.loads(value)["null"]["kind"] == "exact"


@pytest.mark.parametrize("report", [to_json, to_html])
def test_other_things_are_refused(report: Callable[[Any], object]) -> None:
    with pytest.raises(ParameterError, match=r"made of a Verdict or a Comparison; got dict"):
        report({})
