"""`locard references`: models to calibrate by, for who has none."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from locard.cli._options import SeedOption, TrustOption, progress
from locard.cli.zoo import ProcessesOption, TimeOption, seconds
from locard.errors import ParameterError

if TYPE_CHECKING:
    from locard.models import Model
    from locard.records import Data


def references(
    like: Annotated[str, typer.Option(metavar="MODEL", help="The victim, whose architecture they get.")],
    data: Annotated[str, typer.Option(help="Labelled data to train on; another part than a suspect's, if you can.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder; references that it holds are kept.")],
    n: Annotated[int, typer.Option("-n", help="How many: 19 for alpha 0.05, 99 for 0.01.")] = 99,
    check: Annotated[str | None, typer.Option(help="Labelled data that accuracy is measured on.")] = None,
    architecture: Annotated[str, typer.Option(help="Another architecture than the victim's.")] = "",
    time: TimeOption = None,
    processes: ProcessesOption = 2,
    seed: SeedOption = 0,
    param: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE...", help="epochs, lr, batch, weight_decay.")
    ] = None,
    trust: TrustOption = False,
) -> None:
    """Train reference models without the victim's help, and say what they cost and which alpha they buy."""
    from locard.cli.extract import params
    from locard.data import read
    from locard.models import load
    from locard.models.fitting import Recipe
    from locard.registry import construct
    from locard.zoo.references import train_references

    owned, held_out = (None if name is None else read(name) for name in (data, check))
    if owned is None:
        raise ParameterError("--data is missing: references are trained on data of your own")
    victim = load(like, like=owned.domain, trust=trust)
    training = construct(Recipe, dict(params(param)), "the training")
    with progress("training references") as bar:
        found = train_references(victim, owned, n, output, check=held_out, architecture=architecture,
                                 training=training, seed=seed, processes=processes, seconds=seconds(time),
                                 progress=bar)  # fmt: skip
    if not found.built:
        print(f"{output}: time was over before the first reference was trained; run again to go on")
        return
    scores = sorted(found.accuracies)
    each = f", {found.seconds / found.made:.1f} s each" if found.made else ""
    print(f"{output}: {len(found.built)} of {found.wanted} references, {found.made} made now in {found.seconds:.0f} s"
          f"{each}")  # fmt: skip
    print(f"accuracy {scores[0]:.1%} to {scores[-1]:.1%} on {(held_out or owned).name}{_victims(victim, held_out)}")
    print(f"stratum: {found.stratum}, as the cards say{_doubt(found.stratum, output)}")
    others = len(list(output.glob("*/model.json"))) - len(found.built)
    if others > 0:
        print(f"note: {output} holds {others} other models, which would count as references too; take them out")
    left = found.wanted - len(found.built)
    print(f"smallest p {found.floor:.3g}: alpha {found.floor:.3g} or more can be reached"
          + (f"; run again for the other {left}" if left else ""))  # fmt: skip
    print(f"Go on: locard calibrate FP.locard --references {output}")


def _victims(victim: Model, check: Data | None) -> str:
    """The victim's own accuracy, which references should come near to."""
    if check is None:
        return ", which they were trained on"
    from locard.zoo.references import accuracy

    return f"; the victim's is {accuracy(victim, check):.1%}, and they should come near to it"


def _doubt(stratum: str, output: Path) -> str:
    if stratum != "disjoint":
        return ""
    return f"; if the victim has seen some of these data, give them as --references same-data={output}"
