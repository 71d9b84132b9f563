"""One run's dealings with one model: where queries are counted, answered from the journal, and refused."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from locard.errors import AccessError, BudgetError, LocardError, ParameterError, RemoteModelError, check_number
from locard.models.base import Loss, Model, convert
from locard.models.journal import Journal
from locard.records import LADDER, Access, Cost
from locard.seeds import generator

if TYPE_CHECKING:
    import os

Progress = Callable[[int, int], None]
# So many tell two float64 numbers apart; a factor of ten to the hundreds would make infinities of answers.
MOST_DECIMALS = 17


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewParameters:
    """How an answer is blurred before anyone sees it, as an API might.

    Args:
        top_k: probabilities outside the k largest become 0; None keeps all.
        decimals: probabilities or logits are rounded to so many decimals, at most 17; None keeps them.
        noise: standard deviation of Gaussian noise added to probabilities or logits.
        seed: seed of the noise.
    """

    top_k: int | None = None
    decimals: int | None = None
    noise: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.top_k is not None:
            check_number("top_k", self.top_k, low=1, whole=True)
        if self.decimals is not None:
            check_number("decimals", self.decimals, low=0, high=MOST_DECIMALS, whole=True)
        check_number("noise", self.noise, low=0)


class Session:
    """Answers at one access level, each distinct input asked once.

    Args:
        model: the model.
        access: the rung that answers are kept at; views give this rung and those below.
        parameters: how answers are blurred.
        budget: the most queries that may be sent, or None.
        journal: path of the journal file, or None for memory.
        progress: called with (answered, wanted) as answers arrive.

    Raises:
        AccessError: the model cannot give that access.
        RemoteModelError: a resumed endpoint no longer answers as it did.
    """

    def __init__(
        self,
        model: Model,
        access: Access,
        *,
        parameters: ViewParameters | None = None,
        budget: int | None = None,
        journal: str | os.PathLike[str] | None = None,
        progress: Progress | None = None,
    ) -> None:
        if access not in model.grants:
            raise AccessError(f"{access.text} is asked of {model.source}, which gives {model.grants.text}")
        if budget is not None:
            check_number("budget", budget, low=1, whole=True)
        self.model, self.access, self.budget, self.progress = model, access, budget, progress
        self.parameters = parameters or ViewParameters()
        if model.remote and self.parameters.noise:
            raise ParameterError(f"noise imitates an API on this machine's models; {model.source} is an API itself")
        self._rung = (access.implied & _ANSWERS).top or model.native
        _check_blur(self.parameters, access)
        self._noise = generator(self.parameters.seed, "view/noise")
        view = {name: getattr(self.parameters, name) for name in ("top_k", "decimals", "noise", "seed")}
        # In memory nobody asks whose answers these are, and the digest reads every weight.
        identity = "" if journal is None else model.digest
        self.journal = Journal(journal, identity=identity, access=self._rung.text, view=view)
        self.asked = 0
        self.from_journal = 0
        if model.remote and len(self.journal):
            self._check_sentinels()

    @property
    def cost(self) -> Cost:
        """Queries so far."""
        return Cost(asked=self.asked, from_journal=self.from_journal)

    def answer(self, x: np.ndarray, rung: Access) -> np.ndarray:
        """Answers at `rung`: (n, C) float32, or float64 where the inputs are; or (n,) int64 labels.

        Args:
            x: (n, *shape), as the domain says.
            rung: a rung of the session's access.

        Raises:
            ParameterError: the inputs are not of the domain.
            BudgetError: the budget is spent; what was answered is in the journal.
        """
        if rung not in self.access.implied:
            raise AccessError(f"{rung.text} is asked of a view that grants {self.access.text}")
        x = self.model.domain.check(x)
        if len(x) == 0:
            raise ParameterError("no inputs: a batch must hold at least one")
        keys = self.journal.keys(x)
        missing = self.journal.missing(keys)
        self.from_journal += len(x) - len(missing)
        if missing:
            self._ask(x, missing)
        return convert(
            self.journal.gather(keys), self._rung if self._rung is not Access.GRADIENTS else Access.LOGITS, rung
        )

    def repeat(self, x: np.ndarray) -> np.ndarray:
        """Answers to inputs asked before, asked afresh and not counted: for a model on this machine only."""
        parts = sorted(self.model.stream(self.model.domain.check(x)), key=lambda part: part[0].start)
        return np.concatenate([self._blur(answers) for _, answers in parts])

    def input_gradient(self, x: np.ndarray, loss: Loss) -> tuple[np.ndarray, np.ndarray]:
        """See `Model.input_gradient`; each input counts as one query."""
        if Access.GRADIENTS not in self.access.implied:
            raise AccessError(f"GRADIENTS are asked of a view that grants {self.access.text}")
        x = self.model.domain.check(x)
        self._spend(len(x))
        try:
            return self.model.input_gradient(x, loss)
        except LocardError:
            raise
        except Exception as error:
            raise self.model.failure(x, error) from error

    def activations(self, x: np.ndarray, layers: Sequence[str]) -> dict[str, np.ndarray]:
        """See `Model.activations`; each input counts as one query."""
        if Access.MODULE not in self.access.implied:
            raise AccessError(f"activations are asked of a view that grants {self.access.text}")
        x = self.model.domain.check(x)
        self._spend(len(x))
        return self.model.activations(x, layers)

    def weight_gram(self, x: np.ndarray, loss: Loss) -> np.ndarray:
        """See `Model.weight_gram`; each input counts as one query."""
        if Access.MODULE not in self.access.implied:
            raise AccessError(f"gradients by the weights are asked of a view that grants {self.access.text}")
        x = self.model.domain.check(x)
        self._spend(len(x))
        try:
            return self.model.weight_gram(x, loss)
        except LocardError:
            raise
        except Exception as error:
            raise self.model.failure(x, error) from error

    def _ask(self, x: np.ndarray, missing: dict[Hashable, int]) -> None:
        keys, rows = list(missing), np.fromiter(missing.values(), np.int64)
        allowed = len(keys) if self.budget is None else min(len(keys), self.budget - self.asked)
        inputs = x if len(rows) == len(x) == allowed else x[rows[:allowed]]
        done = 0
        if allowed > 0:
            for part, answers in self.model.stream(inputs):
                self.journal.put(keys[part], inputs[part], self._blur(answers))
                self.asked += part.stop - part.start
                done += part.stop - part.start
                if self.progress is not None:
                    self.progress(done, len(keys))
        if allowed < len(keys):
            raise BudgetError(
                f"the budget of {self.budget} queries to {self.model.source} is spent; {len(keys) - allowed} more are "
                "needed. The answers so far are kept: raise --budget, or ask fewer queries"
            )

    def _spend(self, n: int) -> None:
        if self.budget is not None and self.asked + n > self.budget:
            raise BudgetError(
                f"the budget of {self.budget} queries to {self.model.source} is spent: {self.asked} were asked and "
                f"{n} more are needed; raise --budget"
            )
        self.asked += n

    def _blur(self, answers: np.ndarray) -> np.ndarray:
        rung = Access.LOGITS if self._rung is Access.GRADIENTS else self._rung
        answers = convert(answers, self.model.native, rung)
        p = self.parameters
        if rung is Access.LABELS:
            return answers
        if p.noise:
            answers = answers + self._noise.normal(0, p.noise, answers.shape).astype(np.float32)
        if p.top_k is not None and rung is Access.PROBABILITIES and p.top_k < answers.shape[1]:
            # By place, not by value: of equal ones no more than k may be seen.
            kept = np.argsort(-answers, axis=1, kind="stable")[:, : p.top_k]
            cut = np.zeros_like(answers)
            np.put_along_axis(cut, kept, np.take_along_axis(answers, kept, axis=1), axis=1)
            answers = cut
        return answers if p.decimals is None else np.round(answers, p.decimals)

    def _check_sentinels(self) -> None:
        domain = self.model.domain
        like = np.empty(0, object) if domain.kind == "text" else np.empty((0, *domain.shape), domain.dtype)
        kept = self.journal.sentinels(like)
        if kept is None:
            return
        inputs, before = kept
        self._spend(len(inputs))
        now = self.repeat(inputs)
        changed = len(inputs)
        if now.shape == before.shape:
            exact = now.dtype.kind in "iu"
            same = now == before if exact else np.isclose(now, before, rtol=1e-3, atol=1e-4)
            same = same.reshape(len(now), -1).all(axis=1)
            changed = int((~same).sum())
        if changed:
            kept_answers = len(self.journal)
            self.journal.restart(f"{changed} of {len(inputs)} sentinels changed")
            raise RemoteModelError(
                f"{self.model.source} has changed: {changed} of {len(inputs)} sentinels are answered otherwise than "
                f"when this session began. Its {kept_answers} answers stay in the journal "
                f"{str(self.journal.path)!r}, closed; run again to start a new session"
            )


def _check_blur(parameters: ViewParameters, access: Access) -> None:
    """Refuse to blur answers where the grant shows what was blurred by another way."""
    if parameters.top_k is not None and access.implied & (Access.LOGITS | Access.VALUES):
        raise ParameterError(
            f"top_k cuts probabilities, and {access.text} shows every score: grant PROBABILITIES or LABELS"
        )
    if (parameters.noise or parameters.decimals is not None) and access.implied & (Access.GRADIENTS | Access.WEIGHTS):
        raise ParameterError(
            f"noise and decimals blur answers, and {access.text} shows the model behind them: grant LOGITS or less"
        )


_ANSWERS = LADDER[0] | LADDER[1] | LADDER[2] | LADDER[3] | Access.VALUES
