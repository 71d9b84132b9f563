"""`locard transferability`: attack one model through another, both ways."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from locard.cli._options import (
    DataOption,
    JournalOption,
    JsonOption,
    SeedOption,
    TrustOption,
    journal_for,
    print_json,
    progress,
)
from locard.errors import ParameterError

if TYPE_CHECKING:
    from locard.attacks.transferability import Transferability, Way

_WORDS = {
    "fooled": "fool their source",
    "transferred": "of these, the other too",
    "same_wrong": "of these, to the same label",
    "aimed": "reach the class aimed at",
    "matched": "of these, the other too",
    "shaken": "random signs fool the other",
}


def transferability(
    a: Annotated[str, typer.Argument(metavar="A", help="One model.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The other. One of the two must give gradients.")],
    data: DataOption,
    eps: Annotated[str, typer.Option(help="Largest change of a value, as a share of its range.")] = "8/255",
    steps: Annotated[int, typer.Option(help="Steps of MI-FGSM away from the true label.")] = 10,
    aimed_steps: Annotated[int, typer.Option(help="Steps towards a class drawn at random; 0 leaves them out.")] = 50,
    examples: Annotated[int, typer.Option(help="The most inputs, of those that both classify correctly.")] = 500,
    one_way: Annotated[bool, typer.Option("--one-way", help="Make examples on A only; B gives labels.")] = False,
    budget: Annotated[int | None, typer.Option(help="The most queries that may be sent to B.")] = None,
    journal: JournalOption = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
    trust: TrustOption = False,
) -> None:
    """Make adversarial examples on each of two models, and try them on the other.

    A copy and its victim fall for each other's examples more often than independent models do, most of all into the
    class aimed at. At 8/255 independent models fall for many too; 4/255 tells more. Shares come with 95%
    intervals that take inputs for independent; compare them with those of models made without A.
    """
    from locard.attacks.transferability import transferability as tried
    from locard.data import read
    from locard.models import load, restrict
    from locard.records import Access

    owned = read(data)
    ours, theirs = (load(model, like=owned.domain, trust=trust) for model in (a, b))
    rungs = [Access.GRADIENTS if Access.GRADIENTS in model.grants else Access.LABELS for model in (ours, theirs)]
    if one_way:
        rungs[1] = Access.LABELS
    with progress("adversarial examples") as bar:
        found = tried(
            restrict(ours, rungs[0], journal=journal_for(ours, None)),
            restrict(theirs, rungs[1], budget=budget, journal=journal_for(theirs, journal)),
            owned,
            n=examples,
            eps=share(eps),
            steps=steps,
            aimed_steps=aimed_steps,
            seed=seed,
            progress=bar,
        )
    if as_json:
        print_json(to_json(found, a, b))
        return
    print(f"{found.n} inputs that both classify correctly, eps {found.eps:.4g} of the range")
    for source, target, way in ((a, b, found.there), (b, a, found.back)):
        if way is not None:
            print(f"\n{Path(source).name} -> {Path(target).name}")
            for name, row in shares(way, found.n).items():
                interval = "-" if row["n"] == 0 else f"{row['share']:6.1%}  ({row['low']:.1%} to {row['high']:.1%})"
                print(f"  {_WORDS[name]:<29}{row['k']:>6} of {row['n']:<6}{interval}")
    if found.cosine is not None:
        print(f"\nmean cosine of the gradients {found.cosine:.3f}")


def share(text: str) -> float:
    """A number, or one divided by another, such as 8/255.

    Raises:
        ParameterError: it is neither.
    """
    over, slash, under = text.partition("/")
    try:
        return float(over) / float(under) if slash else float(over)
    except (ValueError, ZeroDivisionError):
        raise ParameterError(f"--eps takes a number or a fraction, such as 0.03 or 8/255; got {text!r}") from None


def shares(way: Way, n: int) -> dict[str, dict[str, Any]]:
    """Each count with what it is a share of, and its interval; shares of nothing are None."""
    from locard.evidence import clopper_pearson

    wholes = {"fooled": n, "transferred": way.fooled, "same_wrong": way.fooled, "aimed": n, "matched": way.aimed,
              "shaken": n}  # fmt: skip
    rows: dict[str, dict[str, Any]] = {}
    for name, whole in wholes.items():
        k = getattr(way, name)
        low, high = clopper_pearson(k, whole) if whole else (None, None)
        rows[name] = {"k": k, "n": whole, "share": k / whole if whole else None, "low": low, "high": high}
    return rows


def to_json(found: Transferability, a: str, b: str) -> dict[str, Any]:
    """All of it as plain JSON values."""
    ways = {"there": (a, b, found.there), "back": (b, a, found.back)}
    return {
        "n": found.n,
        "eps": found.eps,
        "steps": found.steps,
        "aimed_steps": found.aimed_steps,
        "cosine": found.cosine,
        **{name: None if way is None else {"source": source, "target": target, **shares(way, found.n)}
           for name, (source, target, way) in ways.items()},
    }  # fmt: skip
