"""`locard weights`: what can be done with weights alone."""

from __future__ import annotations

import typer

from locard.cli.weights_canonical import canonical

app = typer.Typer(help="What can be done with a model's weights alone.", no_args_is_help=True)


@app.callback()
def weights() -> None:
    """What can be done with a model's weights alone."""


app.command(name="canonical")(canonical)
