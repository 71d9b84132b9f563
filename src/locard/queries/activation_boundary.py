"""Places where a piecewise linear victim bends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from locard.errors import AccessError, ParameterError, check_number, unknown
from locard.queries.base import Population, Queries, reach, samplers
from locard.records import Access, Data
from locard.seeds import generator

if TYPE_CHECKING:
    from locard.models import View

# The most places looked at on either side of a line's middle, and lines for each unit: the strongest quarter is kept.
PLACES, TRIED = 8, 4
# A bend below this share of the answers is rounding.
ROUNDING = 1e-5
_ANSWERS = ("logits", "values")


@samplers.register("activation-boundary")
@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationBoundary:
    """Triples x - h v, x, x + h v across the surfaces where hidden units of the victim switch (TAFA's queries [1]).

    A ReLU network is linear between such surfaces, so f(x - h v) - 2 f(x) + f(x + h v) is 0 unless one is crossed; then
    it is the jump of the slope times what of h lies beyond. Lines are drawn at random through the box of the inputs,
    with steps of -1 or 1 in each entry, so that no data but their range is needed and every point lies on the domain's
    grid. On each line the strongest bend is taken, of all lines the strongest quarter.

    The paper's text was not at hand: that switching surfaces are found without data and for any task is its abstract's,
    the rest is reconstructed, and differs from the usual search for critical points. That bisects to a surface and
    wants no other within 2 h. In a network of some twenty thousand units a hundred surfaces lie within a step of the
    8-bit grid, so none is alone; here a bend is what all surfaces within h add up to, and is searched by answers alone,
    no weights and no gradients, so that regression is served too. Nor are neighbouring places tried where a suspect
    does not bend, as a search for surfaces that have drifted would do.

    Args:
        eta: h, the step in every entry, as a share of `reach`; at least a quantum. The first value that was tried: on
            Fashion-MNIST half of it loses fine-tuned copies, and with twice as much innocent models match.
        answers: "logits", or "values" (regression, embeddings); what the representation records too.

    n, the number of queries, must be a multiple of 3. The queries carry `units` (n,) int64, and for each unit
    `direction`, the victim's bend brought to length 1, (n / 3, answers), and `strength`, its length, (n / 3,) float64.

    [1] Pan, Zhang, Lu, Yang. TAFA: A Task-Agnostic Fingerprinting Algorithm for Neural Networks. ESORICS 2021.
    """

    victim_access: ClassVar[Access] = Access(0)
    needs_labels: ClassVar[bool] = False
    needs_population: ClassVar[bool] = False

    eta: float = 0.02
    answers: str = "logits"

    def __post_init__(self) -> None:
        """Check the range and the name."""
        check_number("eta", self.eta, above=0, high=0.1)
        if self.answers not in _ANSWERS:
            raise unknown("kind of answers", self.answers, _ANSWERS)

    def draw(
        self, victim: View, data: Data, *, n: int | None, default: int, seed: int, population: Population | None
    ) -> Queries:
        """See `Sampler.draw`. Cost: 68 queries to the victim for each unit. No input of the data is asked."""
        if data.domain.kind not in ("image", "tabular") or np.dtype(data.domain.dtype).kind != "f":
            raise ParameterError(
                f"bends are looked for between inputs; {data.name} holds {data.domain.text}: use a scheme that "
                "asks the data as they are (akh, sac with variant=normal or variant=source, zest)"
            )
        if n is not None and n % 3:
            raise ParameterError(f"a bend is asked with three queries, so --queries must be a multiple of 3; got {n}")
        units = max(1, default // 3) if n is None else n // 3
        points = self._lines(data, TRIED * units, seed)
        lines, places = points.shape[:2]
        ask = getattr(victim, self.answers, None)
        if ask is None:
            raise AccessError(f"bends of {self.answers} are looked for; record those too (representation.answers)")
        answers = ask(points.reshape(-1, *data.domain.shape))
        answers = answers.reshape(lines, places, -1).astype(np.float64)
        bends = answers[:, :-2] - 2 * answers[:, 1:-1] + answers[:, 2:]
        strength = np.linalg.norm(bends, axis=2)
        middle = strength.argmax(axis=1)
        best = strength[np.arange(lines), middle]
        sound = int(np.count_nonzero(best > ROUNDING * max(1e-30, float(np.abs(answers).max()))))
        if sound < units:
            raise ParameterError(
                f"{units} bends are needed; {sound} of {lines} lines bend: {victim.source} is linear, or too smooth "
                f"for a step of {self.eta:g} (--param eta=...)"
            )
        kept = np.argsort(-best, kind="stable")[:units]
        at = middle[kept][:, None] + np.arange(3)
        direction = bends[kept, middle[kept]] / best[kept][:, None]
        return Queries(
            inputs=points[kept[:, None], at].reshape(-1, *data.domain.shape),
            extras={"units": np.repeat(np.arange(units), 3), "direction": direction, "strength": best[kept]},
        )

    def _lines(self, data: Data, lines: int, seed: int) -> np.ndarray:
        """(lines, places, *shape) points at steps of h along random lines, as delivered."""
        source, domain = generator(seed, "activation-boundary"), data.domain
        step = self.eta * reach(data)
        if domain.quantum is not None:
            # Whole steps on the grid, so that the three points of a triple stay on one line.
            step = np.maximum(np.rint(step / domain.quantum), 1) * domain.quantum
        sides = PLACES
        if domain.bounds is not None:
            # On a coarse grid shorter lines, so that their middles have room.
            sides = min(PLACES, int(np.ceil((domain.bounds[1] - domain.bounds[0]) / (2 * np.max(step)))) - 2)
            low, high = domain.bounds[0] + (sides + 1) * step, domain.bounds[1] - (sides + 1) * step
            if sides < 1:
                raise ParameterError(f"{data.name} has no room for lines of three steps of {np.max(step):g}")
        else:
            middle = data.inputs.mean(axis=0, dtype=np.float64)
            low, high = middle - 2 * reach(data), middle + 2 * reach(data)
        starts = domain.deliver((low + (high - low) * source.random((lines, *domain.shape))).astype(domain.dtype))
        ways = source.choice(np.array([-1.0, 1.0]), (lines, *domain.shape)) * step
        places = np.arange(-sides, sides + 1).reshape(-1, *[1] * len(domain.shape))
        return domain.deliver((starts[:, None] + places * ways[:, None]).astype(domain.dtype))


def read(queries: Queries | dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """`direction` and `strength` of queries that may come from a stranger.

    Raises:
        ParameterError: they are not as they must be.
    """
    extras = queries.extras if isinstance(queries, Queries) else queries
    direction, strength = extras.get("direction"), extras.get("strength")
    if direction is None or strength is None or direction.ndim != 2 or strength.shape != direction.shape[:1]:
        raise ParameterError(
            "bends need a direction and a strength for each unit: use the sampler 'activation-boundary'"
        )
    if direction.dtype.kind != "f" or strength.dtype.kind != "f" or not (strength > 0).all():
        raise ParameterError("directions must be numbers, and strengths positive ones")
    return direction, strength
