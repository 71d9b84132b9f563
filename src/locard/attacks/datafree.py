"""Extraction without data: a network makes the queries, and learns to make those that the copy still gets wrong.

The generator and the copies are trained in turns; at the end the copy is trained once more on every answer that was
bought, which costs no query and gains most.

With "disagreement" [2] two copies learn the same answers by the cross-entropy, from other first weights. The generator
is trained on what the copies say, so its gradients are exact and cost no query: it maximises the distance of their
probabilities, mean over inputs of sum_k |p1_k - p2_k|, and the entropy of the classes that they see in a whole batch,
lest it draw one class for ever.

With "zeroth-order" [1] there is one copy, and the generator maximises the distance of its logits from the victim's,
recovered from probabilities. The victim's share of that gradient is estimated by forward differences; with few queries
these are rough, and the generator takes few steps.

Neither paper's text was at hand. [1] is written from a description of its algorithm; where we differ: the copy learns
by AdamW at a constant rate, it learns from the queries of the differences too, and its last training is ours. [2] is
built from its idea (two copies, disagreement, diversity, replay); its formulas may be others. Counts as a theft within
10 points of accuracy and from 80 % agreement with the victim.

[1] Truong, Maini, Walls, Papernot. Data-Free Model Extraction. CVPR 2021.
[2] Rosenthal, Enouen, Pham, Tan. DisGUIDE: Disagreement-Guided Data-Free Model Extraction. AAAI 2023.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from locard.attacks._answers import Answers
from locard.attacks._generator import forward_differences, generator, inputs, reach, recovered
from locard.attacks._student import Extractor
from locard.attacks.base import Copy, attacks
from locard.errors import BudgetError, ParameterError, check_number
from locard.models.fitting import build, fit, reproducible
from locard.records import Access, Data, Domain
from locard.seeds import derive

if TYPE_CHECKING:
    import torch

    from locard.models import LabelView
    from locard.models.session import Progress

_SMOOTHING, _LEAST = 0.1, 1e-12


@attacks.register("datafree")
@dataclass(frozen=True, slots=True, kw_only=True)
class DataFree(Extractor):
    """Train a copy on answers to inputs that a network makes.

    Cost: at most `queries` queries: `batch` in a round of "disagreement", batch * (directions + 1 + steps) in one of
    "zeroth-order", the last round cut short. Memory: about nine bytes for each number of all inputs together.

    Args:
        estimate: "disagreement", or "zeroth-order", which needs probabilities.
        queries: the most inputs to ask.
        batch: inputs that the generator makes at a time.
        steps: of the copies in a round: on the newest answers and as many older ones ("disagreement"), or each on a
            batch asked for it ("zeroth-order").
        latent: numbers of noise behind one input.
        generator_width: channels of the generator.
        generator_lr: learning rate of the generator.
        contrast: standard deviation of the raw numbers of a batch, before tanh; the more, the nearer to the bounds.
        diversity: weight of the entropy of classes in a batch; "disagreement" only.
        directions: of the differences at each input; "zeroth-order" only.
        step: length of the differences, before tanh; where the domain is quantised at least what its grid shows, see
            `_generator.reach`. "zeroth-order" only.

    The rest as in `Extractor`: `lr` is the copies' rate in the rounds, and the highest one of the last training, of
    `epochs` passes over all answers.
    """

    name: ClassVar[str] = "datafree"
    less: ClassVar[dict[str, Any]] = {"answers": "labels", "estimate": "disagreement"}

    estimate: str = "disagreement"
    queries: int = 50_000
    batch: int = 100
    steps: int = 3
    latent: int = 64
    generator_width: int = 16
    generator_lr: float = 1e-3
    contrast: float = 3.0
    diversity: float = 1.0
    directions: int = 1
    step: float = 1e-3

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.estimate not in ("disagreement", "zeroth-order"):
            raise ParameterError(f"estimate must be 'disagreement' or 'zeroth-order'; got {self.estimate!r}")
        Extractor.__post_init__(self)
        if self.estimate == "zeroth-order" and self.answers == "labels":
            raise ParameterError(
                "zeroth-order takes differences of probabilities, and labels have none: take "
                "--param estimate=disagreement"
            )
        check_number("batch", self.batch, low=2, whole=True)
        for name in ("queries", "steps", "latent", "generator_width", "directions"):
            check_number(name, getattr(self, name), low=1, whole=True)
        for name in ("generator_lr", "contrast", "step"):
            check_number(name, getattr(self, name), above=0, high=1e3)
        check_number("diversity", self.diversity, low=0, high=1e3)

    @property
    def needs_data(self) -> bool:
        """None."""
        return False

    def _steal(self, victim: LabelView, data: Data | None, *, seed: int, progress: Progress | None) -> Copy:
        import torch

        arguments = self.arguments(victim)
        refuse_unbounded(victim.domain, victim.source)
        bought = Memory(victim, self.needs, self.queries)
        with reproducible(derive(seed, "datafree/rounds")), torch.enable_grad():
            rounds = Rounds(self, victim.domain, arguments, bought, seed=seed)
            try:
                while bought.count < self.queries:
                    rounds.disagree() if self.estimate == "disagreement" else rounds.differ()
                    if progress is not None:
                        progress(bought.count, self.queries)
            except BudgetError:
                if not bought.count:
                    raise
        module = rounds.copies[0]
        x, y = bought.x[: bought.count], bought.y[: bought.count]
        fit(module, x.numpy(), y.numpy(), recipe=self.recipe, seed=seed,
            objective=lambda inputs, rows: rounds.loss(module(inputs), y[rows]).mean())  # fmt: skip
        return Copy(module=module, architecture=self.architecture, arguments=arguments, epochs=self.epochs,
                    notes=bought.notes)  # fmt: skip


class Memory:
    """Inputs in the order they were asked, each with its answer.

    Args:
        victim: a view that answers.
        access: LABELS or PROBABILITIES.
        most: how many may be asked.

    Attributes:
        x: (most, *shape), of which the first `count` were asked.
        y: (most,) int64 labels or (most, classes) probabilities.
        count: how many have an answer.
    """

    def __init__(self, victim: LabelView, access: Access, most: int) -> None:
        import torch

        self._answers, self._domain, self.count = Answers(victim, access, most=most), victim.domain, 0
        self.x = torch.empty((most, *victim.domain.shape))
        soft = access is Access.PROBABILITIES
        self.y = torch.empty((most, victim.classes or 0)) if soft else torch.empty(most, dtype=torch.int64)

    @property
    def notes(self) -> tuple[str, ...]:
        """A note where the budget ended early."""
        return self._answers.notes

    def ask(self, wanted: torch.Tensor) -> slice:
        """The rows of `x` and `y` that now hold these inputs, as the domain delivers them, and their answers.

        Raises:
            BudgetError: not all were answered, for want of room or budget; those that were are kept.
        """
        import torch

        start, room = self.count, len(self.x) - self.count
        inputs = self._domain.deliver(wanted[:room].detach().numpy())
        answers = self._answers.ask(inputs)
        self.count += len(answers)
        self.x[start : self.count] = torch.from_numpy(inputs[: len(answers)])
        self.y[start : self.count] = torch.from_numpy(answers)
        if len(answers) < len(wanted):
            raise BudgetError(f"{len(answers)} of {len(wanted)} inputs were answered; the queries end here")
        return slice(start, self.count)


class Rounds:
    """A generator, its copies, and how they take turns.

    Args:
        attack: its parameters.
        domain: the victim's.
        arguments: of the copy's architecture.
        bought: where answers come from.
        seed: of weights and noise.
    """

    def __init__(
        self, attack: DataFree, domain: Domain, arguments: dict[str, Any], bought: Memory, *, seed: int
    ) -> None:
        import torch

        self._attack, self._domain, self._bought = attack, domain, bought
        self._generator = generator(domain, latent=attack.latent, width=attack.generator_width,
                                    seed=derive(seed, "datafree/generator"))  # fmt: skip
        self._source = torch.Generator().manual_seed(derive(seed, "datafree/noise"))
        self.loss = surprise if attack.estimate == "disagreement" else distance
        self._step = reach(domain, attack.step)
        number = 2 if attack.estimate == "disagreement" else 1
        self.copies = [build(attack.architecture, arguments, seed=derive(seed, f"datafree/copy {k}"))
                       for k in range(number)]  # fmt: skip
        self._teachers = [torch.optim.AdamW(copy.parameters(), lr=attack.lr, fused=True) for copy in self.copies]
        self._trainer = torch.optim.Adam(self._generator.parameters(), lr=attack.generator_lr, betas=(0.5, 0.999))

    def disagree(self) -> None:
        """One round of [2]: the generator learns from the copies, a batch is asked, the copies learn from all answers.

        Raises:
            BudgetError: see `Memory.ask`.
        """
        import torch

        if self._bought.count:
            made = inputs(self._raw(), self._domain)
            one, other = (copy.eval()(made).softmax(dim=1) for copy in self.copies)
            seen = (one + other).mean(dim=0) / 2
            # The slope of p log p is that of its logarithm, so a 0 would end all learning.
            entropy = -(seen * seen.clamp_min(_LEAST).log()).sum()
            self._train((one - other).abs().sum(dim=1).mean() + self._attack.diversity * entropy)
        newest = self._bought.ask(inputs(self._raw(), self._domain))
        for _ in range(self._attack.steps):
            for copy, teacher in zip(self.copies, self._teachers, strict=True):
                older = torch.randint(self._bought.count, (self._attack.batch,), generator=self._source)
                self._teach(copy, teacher, torch.cat([torch.arange(newest.start, newest.stop), older]))

    def differ(self) -> None:
        """One round of [1]: the generator learns from differences, then the copy from a new batch for each step.

        Raises:
            BudgetError: see `Memory.ask`.
        """
        (copy,), (teacher,) = self.copies, self._teachers
        raw = self._raw()
        slope = estimated_slope(raw.detach(), copy.eval(), self._bought, self._domain, step=self._step,
                                directions=self._attack.directions, source=self._source)  # fmt: skip
        self._train((raw * slope).flatten(1).sum(dim=1).mean())
        for _ in range(self._attack.steps):
            self._teach(copy, teacher, self._bought.ask(inputs(self._raw(), self._domain)))

    def _raw(self) -> torch.Tensor:
        import torch

        noise = torch.randn((self._attack.batch, self._attack.latent), generator=self._source)
        return self._attack.contrast * self._generator(noise)

    def _train(self, gain: torch.Tensor) -> None:
        self._trainer.zero_grad()
        # By the generator alone: the copies' gradients would be computed only to be thrown away.
        (-gain).backward(inputs=list(self._generator.parameters()))
        self._trainer.step()

    def _teach(self, copy: torch.nn.Module, teacher: torch.optim.Optimizer, rows: slice | torch.Tensor) -> None:
        loss = self.loss(copy.train()(self._bought.x[rows]), self._bought.y[rows]).mean()
        if not math.isfinite(loss.item()):
            raise ParameterError("training diverged: the loss is not finite; lower lr")
        teacher.zero_grad()
        loss.backward()
        teacher.step()


def estimated_slope(
    raw: torch.Tensor,
    copy: torch.nn.Module,
    bought: Memory,
    domain: Domain,
    *,
    step: float,
    directions: int,
    source: torch.Generator,
) -> torch.Tensor:
    """The gradient, by raw numbers, of each input's distance between victim and copy.

    Args:
        raw: (n, *shape).
        copy: in evaluation mode.
        bought: answers, (directions + 1) * n of which this costs.
        domain: the victim's.
        step: see `forward_differences`.
        directions: likewise.
        source: likewise.

    Returns:
        (n, *shape).

    Raises:
        BudgetError: see `Memory.ask`.
    """
    import torch

    def losses(moved: torch.Tensor) -> torch.Tensor:
        # The copy is asked what the victim was asked, after rounding.
        rows = bought.ask(inputs(moved, domain))
        return distance(copy(bought.x[rows]), bought.y[rows])

    with torch.no_grad():
        return forward_differences(losses, raw, step=step, directions=directions, source=source)


def distance(logits: torch.Tensor, probabilities: torch.Tensor) -> torch.Tensor:
    """Mean over classes of |recovered logit - logit|, (n,): the loss of [1], which does not vanish as a copy gets good.

    Args:
        logits: (n, classes), the copy's.
        probabilities: (n, classes), the victim's.
    """
    return (recovered(probabilities) - logits).abs().mean(dim=1)


def surprise(logits: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
    """The cross-entropy of a copy's logits with the victim's labels or probabilities, (n,).

    A tenth of a label is spread over all classes, lest the copies become so sure that their disagreement has no slope.

    Args:
        logits: (n, classes).
        answers: (n,) int64 or (n, classes).
    """
    from torch.nn import functional

    smoothing = _SMOOTHING if answers.ndim == 1 else 0.0
    return functional.cross_entropy(logits, answers, reduction="none", label_smoothing=smoothing)


def refuse_unbounded(domain: Domain, source: str) -> None:
    """Refuse a victim whose inputs nobody can make who has not seen some.

    Raises:
        ParameterError: inputs that are no real numbers, or have no bounds.
    """
    if domain.kind not in ("image", "tabular") or domain.dtype != "float32" or domain.bounds is None:
        bounds = "" if domain.bounds else " without bounds"
        raise ParameterError(
            f"datafree makes images or tables of float32 real numbers between bounds; {source} takes "
            f"{domain.text}{bounds}"
        )
