"""`locard derive`: make a copy, as a thief would."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from locard.cli._options import JournalOption, SeedOption, TrustOption, journal_for, progress
from locard.errors import ArtefactError, ParameterError

if TYPE_CHECKING:
    from locard.attacks import Acceptance, Attack, Stolen
    from locard.models import Model

FILES = (".pt2", ".onnx")


def derive(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The model to copy.")],
    attack: Annotated[str, typer.Option(help="A name of `locard attacks`.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="A folder to be made, or a .pt2 or .onnx file.")],
    data: Annotated[str | None, typer.Option(help="The thief's own data, where the attack needs them.")] = None,
    check: Annotated[str | None, typer.Option(help="Labelled data to judge whether the copy is worth having.")] = None,
    access: Annotated[str | None, typer.Option(help="The most that the thief may see of the model.")] = None,
    budget: Annotated[int | None, typer.Option(help="The most queries the thief may send to the model.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Probabilities outside the K largest are hidden.")] = None,
    decimals: Annotated[int | None, typer.Option(help="Answers are rounded to so many decimals.")] = None,
    journal: JournalOption = None,
    seed: SeedOption = 0,
    param: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE...", help="The attack's parameters.")] = None,
    trust: TrustOption = False,
) -> None:
    """Make a copy of a model, to try a fingerprint on before you rely on it.

    An attack that is interrupted begins again, with the answers that a journal kept.
    """
    from locard.attacks import accept, build
    from locard.cli.extract import params
    from locard.data import read
    from locard.models import load, restrict
    from locard.models.torch_module import TorchModel
    from locard.records import Access

    if output.exists():
        raise ParameterError(f"{str(output)!r} is there already; name another, or remove it")
    if output.suffix.lower() in (".pt", ".pth", ".bin", ".safetensors"):
        raise ParameterError(f"a copy is a folder, or a .pt2 or .onnx file; {output.name!r} ends in {output.suffix!r}")
    if output.suffix.lower() in FILES and not output.parent.is_dir():
        raise ParameterError(f"there is no folder {str(output.parent)!r} to write {output.name!r} to; make it first")
    built = build(attack, dict(params(param)))
    if access is not None:
        built.check_access(Access.parse(access), f"{Access.parse(access).text} was granted")
    owned, held_out = (None if name is None else read(name) for name in (data, check))
    if held_out is not None and held_out.labels is None:
        raise ParameterError(f"whether a theft succeeded is judged on true labels; {held_out.name} has none")
    victim = load(model, like=None if owned is None else owned.domain, trust=trust)
    built.check_access(victim.grants, f"{victim.source} gives {victim.grants.text}")
    if output.suffix.lower() not in FILES:
        check_folder(output, built, victim)
    if held_out is not None:
        held_out = held_out.taken_by(victim.domain, victim.source)
    with progress(attack) as bar:
        seen = restrict(victim, built.needs, budget=budget, top_k=top_k, decimals=decimals,
                        journal=journal_for(victim, journal))  # fmt: skip
        stolen = built.derive(seen, owned, seed=seed, progress=bar)
    copy = TorchModel(stolen.module, domain=victim.domain, lineage=stolen.lineage, source=str(output))
    judged = None if held_out is None else accept(built, copy, victim, held_out, floor=stolen.floor)
    written = write(copy, stolen, victim, output, judged)
    effort = stolen.effort
    print(f"{written}: {attack}, {effort.queries:,} queries, {effort.epochs} epochs, {effort.seconds:.1f} s")
    if effort.known:
        print(f"note: {effort.known:,} more answers were known already")
    for note in stolen.notes:
        print(f"note: {note}")
    if judged is not None:
        verdict = "a theft" if judged.accepted else f"a failed theft: {judged.reason}"
        before = "" if judged.victim_accuracy is None else f"{judged.victim_accuracy:.1%} -> "
        kept = "on its own task" if judged.agreement is None else f"agreement {judged.agreement:.1%}"
        print(f"accuracy {before}{judged.accuracy:.1%}, {kept}: {verdict}")


def check_folder(output: Path, attack: Attack, victim: Model) -> None:
    """Refuse a folder, before anything is asked, where the copy's architecture will have no name.

    Raises:
        ParameterError: the attack gives it none, or it would be the victim's, who says none.
    """
    from locard.models import folder

    if attack.network == "unnamed":
        raise ParameterError(
            f"what {attack.name} makes is of no named architecture, as a folder needs: write a file with "
            f"-o {output}.pt2 or -o {output}.onnx"
        )
    if attack.network == "victim" and not (Path(victim.source) / folder.CARD).is_file():
        raise ParameterError(
            f"a folder holds architectures that have a name, and {victim.source} does not say its own: write a file "
            f"with -o {output}.pt2 or -o {output}.onnx"
        )


def write(copy: Any, stolen: Stolen, victim: Model, output: Path, judged: Acceptance | None) -> Path:
    """The copy as our folder, or as a .pt2 or .onnx file, by the name's ending; its lineage goes with it.

    Returns:
        Where it is: a .pt2 file in the folder, where the attack left it of no named architecture.
    """
    from locard.attacks import bare
    from locard.models import exported, folder, onnx

    if output.suffix.lower() == ".pt2":
        exported.save(copy, output)
    elif output.suffix.lower() == ".onnx":
        onnx.export(copy, output)
    elif stolen.unnamed:
        try:
            output.mkdir(parents=True)
        except OSError as error:
            raise ArtefactError(f"cannot make the folder {str(output)!r}: {error.strerror or error}") from error
        exported.save(copy, output := output / "model.pt2")
    elif stolen.architecture is not None:
        folder.save(output, bare(stolen.module), architecture=stolen.architecture, arguments=stolen.arguments,
                    domain=victim.domain, lineage=stolen.lineage,
                    accuracy=None if judged is None else judged.accuracy)  # fmt: skip
    else:
        card = folder.read_card(Path(victim.source))
        # Other arguments are those of another task, whose classes have other names.
        folder.save(output, bare(stolen.module), architecture=card.architecture,
                    arguments=card.arguments | stolen.arguments, domain=card.domain, mean=card.mean, std=card.std,
                    classes=() if stolen.arguments else card.classes, lineage=stolen.lineage,
                    accuracy=None if judged is None else judged.accuracy)  # fmt: skip
    return output
