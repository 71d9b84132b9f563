"""Adversarial training: the stolen weights are trained on against inputs that fool them, made anew at each step [1].

Each batch of the thief's is moved by PGD from a random start, up the cross-entropy of the copy as it is then, in the
box of radius eps; the copy learns these inputs with their true labels and no others [1, equation 2.1]. The
copy attacks itself in evaluation mode, so that its normalisation layers count no input twice. What it learns is
delivered, as all inputs are: within the domain's bounds and on its grid, up to half a quantum out of the box. [1]'s
text was not at hand; eps, step and number of steps are common practice. Boundaries move most of all, so this attack
aims at every fingerprint of adversarial or boundary points. Counts as a theft within 10 points of accuracy.

[1] Madry, Makelov, Schmidt, Tsipras, Vladu. Towards Deep Learning Models Resistant to Adversarial Attacks. ICLR 2018.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from locard.attacks._training import Training
from locard.attacks.base import Copy, attacks
from locard.errors import ParameterError, check_number
from locard.models import Session, view
from locard.models.fitting import fit
from locard.models.torch_module import TorchModel
from locard.queries._adversarial import pgd, radius_of
from locard.queries.base import reach
from locard.records import Access, Data
from locard.seeds import generator

if TYPE_CHECKING:
    import torch

    from locard.models import ModuleView
    from locard.models.session import Progress


@attacks.register("adversarial-training")
@dataclass(frozen=True, slots=True, kw_only=True)
class AdversarialTraining(Training):
    """Train on against the copy's own adversarial examples; an epoch costs as much as `steps` + 1 plain ones.

    Args:
        eps: largest change of an entry, in (0, 1], as a share of the domain's range, of a column's standard deviation
            where the domain has none; where the domain's quantum is larger, it is the largest change.
        alpha: length of one step, in (0, 1], likewise a share.
        steps: gradients for each adversarial example.
        epochs: passes over the thief's data.
        lr: highest learning rate.
        batch: inputs in one step.
    """

    name: ClassVar[str] = "adversarial-training"
    margin: ClassVar[float] = 0.10

    eps: float = 8 / 255
    alpha: float = 2 / 255
    steps: int = 7
    epochs: int = 5

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_number("eps", self.eps, above=0, high=1)
        check_number("alpha", self.alpha, above=0, high=1)
        check_number("steps", self.steps, low=1, whole=True)
        Training.__post_init__(self)

    def _steal(self, victim: ModuleView, data: Data | None, *, seed: int, progress: Progress | None) -> Copy:
        assert data is not None  # noqa: S101 - `derive` has checked
        assert data.labels is not None  # noqa: S101
        import torch

        labels, domain = data.labels, data.domain
        if domain.kind not in ("image", "tabular") or data.inputs.dtype.kind != "f":
            raise ParameterError(f"{self.name} moves images or tables of real numbers; {data.name} holds {domain.text}")
        module = copy.deepcopy(victim.module())
        radius, step = radius_of(data, self.eps), self.alpha * reach(data)
        starts = generator(seed, "adversarial-training/starts")
        itself = Session(TorchModel(module, domain=domain, batch_size=self.batch), Access.GRADIENTS)
        seen = view(itself, Access.GRADIENTS)

        def objective(x: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
            y = labels[rows.numpy()]
            moved = pgd(seen, x.numpy(), y, radius=radius, step=step, steps=self.steps, domain=domain, source=starts)
            return torch.nn.functional.cross_entropy(module(torch.from_numpy(moved)), torch.from_numpy(y))

        fit(module, data.inputs, labels, recipe=self.recipe, seed=seed, objective=objective, progress=progress)
        eps = f"eps {radius:.4g}" if isinstance(radius, float) else f"eps {self.eps:.4g} of each column's deviation"
        note = f"trained against PGD of {eps} in {self.steps} steps; it took {itself.asked:,} gradients by inputs"
        return Copy(module=module, epochs=self.epochs, notes=(note,))
