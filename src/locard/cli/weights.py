"""`locard weights`: what can be done with weights alone."""

from __future__ import annotations

from typing import Annotated

import typer

from locard.cli._options import (
    AlphaOption,
    FailOption,
    HtmlOption,
    JsonOption,
    ReferencesOption,
    SeedOption,
    check_decision,
    grouped,
    print_json,
    progress,
    write,
)
from locard.cli.weights_canonical import canonical

app = typer.Typer(help="Models' weights, without running them: test, canonical.", no_args_is_help=True)


@app.callback()
def weights() -> None:
    """Models' weights, without running them."""


@app.command(name="test")
def compare(
    victim: Annotated[
        str, typer.Argument(metavar="VICTIM", help="safetensors, GGUF, ONNX or torch file, or a folder.")
    ],
    suspect: Annotated[str, typer.Argument(metavar="SUSPECT", help="Likewise; formats may differ.")],
    references: ReferencesOption = None,
    alpha: AlphaOption = 0.05,
    seed: SeedOption = 0,
    fail_if: FailOption = None,
    as_json: JsonOption = False,
    html: HtmlOption = None,
) -> None:
    """Test whether one model's weights come from another's. Nothing in a file is run, and torch is not needed."""
    from rich.console import Console

    from locard.engine.lineage import compare_weights
    from locard.reports.weights import weights_to_html, weights_to_json, weights_to_terminal

    check_decision(fail_if)
    with progress("comparing weights") as bar:
        verdict = compare_weights(victim, suspect, references=grouped(references), alpha=alpha, seed=seed, progress=bar)
    if html is not None:
        write(html, weights_to_html(verdict))
    if as_json:
        print_json(weights_to_json(verdict))
    else:
        weights_to_terminal(verdict, Console())
        if html is not None:
            print(f"report: {html}")
    if fail_if is not None and verdict.decision == fail_if:
        raise typer.Exit(3)


app.command(name="canonical")(canonical)
