"""The laws of an attack."""

from __future__ import annotations

import copy
import functools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from locard.attacks import Attack, Stolen, attacks, build
from locard.errors import AccessError, BudgetError, LocardError, ParameterError
from locard.models import load, restrict
from locard.records import LADDER, Access, Data, Domain
from locard.testing.laws import ConformanceError, law, refused
from locard.testing.toys import toy_data, toy_network

if TYPE_CHECKING:
    from locard.models.session import Progress
    from locard.models.torch_module import TorchModel

# Answers of another batch size or runtime differ by rounding, as a share of the largest.
ROUNDING = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bench:
    """An attack with a victim and the thief's data."""

    name: str
    params: dict[str, Any]
    attack: Attack
    victim: TorchModel
    data: Data

    def derive(
        self, *, data: Data | None = None, seed: int = 0, budget: int | None = None, progress: Progress | None = None
    ) -> Stolen:
        view = restrict(self.victim, self.attack.needs, budget=budget)
        return self.attack.derive(view, self.data if data is None else data, seed=seed, progress=progress)

    def model(self, stolen: Stolen, batch_size: int = 64) -> TorchModel:
        from locard.models.torch_module import TorchModel

        return TorchModel(stolen.module, domain=self.victim.domain, batch_size=batch_size)


def _named(bench: _Bench) -> None:
    """An attack has the name it is registered by, a line for people, and plain parameters that cannot change."""
    kind = attacks.get(bench.name)
    law(issubclass(kind, Attack), f"{bench.name} is no Attack")
    law(bench.attack.name == bench.name, f"registered as {bench.name!r}, but named {bench.attack.name!r}")
    law(is_dataclass(kind), f"{bench.name} is no dataclass")
    law(kind.__dataclass_params__.frozen, f"the parameters of {bench.name} can be changed")  # pyright: ignore[reportAttributeAccessIssue]
    law((kind.__doc__ or "").strip(), f"{bench.name} does not say what it does")
    for field in fields(bench.attack):  # pyright: ignore[reportArgumentType]
        value = getattr(bench.attack, field.name)
        law(
            type(value) in (bool, int, float, str),
            f"parameter {field.name} is a {type(value).__name__}, no plain value",
        )
    for share in ("margin", "fidelity"):
        law(0 <= getattr(bench.attack, share) <= 1, f"{share} is no share: {getattr(bench.attack, share)}")


def _same_seed(bench: _Bench) -> None:
    """One seed gives one copy; the victim, the thief's data and the global random states stay as they were."""
    import torch

    victim, data, state = bench.victim.digest, bench.data.digest, torch.get_rng_state()
    numpy_state = repr(np.random.get_state())  # noqa: NPY002 - that nobody touched it
    first, second = (bench.model(bench.derive(seed=3)).digest for _ in range(2))
    law(first == second, "two copies made with one seed differ")
    law(bench.victim.digest == victim, "the victim was changed")
    law(bench.data.digest == data, "the thief's data were changed")
    law(torch.equal(torch.get_rng_state(), state), "torch's global random state was changed")
    law(repr(np.random.get_state()) == numpy_state, "NumPy's global random state was changed")  # noqa: NPY002


def _papers(bench: _Bench) -> None:
    """A copy says whose it is, how it was made, from which data and at what cost."""
    stolen = bench.derive(seed=7)
    lineage = stolen.lineage
    law(lineage.parent == bench.victim.digest, "the lineage does not name the victim")
    law(lineage.derived_by == bench.name, f"the lineage says {lineage.derived_by!r}")
    law(lineage.seed == 7, f"the lineage says seed {lineage.seed}")
    expected = bench.data.digest if bench.attack.needs_data else None
    law(lineage.data == expected, "the lineage does not say which data were used")
    law(
        (lineage.architecture is None) == stolen.unnamed,
        "a copy is of a named architecture, or says that it is of none",
    )
    law(
        (stolen.architecture is not None) == (bench.attack.network == "own"),
        f"its copies are said to be of the network {bench.attack.network!r}; this one names {stolen.architecture}",
    )
    law(stolen.effort.seconds > 0, "no time was spent")
    law(stolen.effort.epochs >= 0, "epochs are negative")


def _own_memory(bench: _Bench) -> None:
    """A copy shares no memory with its victim."""
    ours = {tensor.data_ptr() for tensor in bench.victim.module().state_dict().values()}
    theirs = {tensor.data_ptr() for tensor in bench.derive().module.state_dict().values()}
    law(not ours & theirs, "a tensor of the copy is the victim's own")


def _answers(bench: _Bench) -> None:
    """A copy is in evaluation mode, and answers each input with finite logits, whatever lies beside it in the batch."""
    stolen = bench.derive()
    law(not any(part.training for part in stolen.module.modules()), "the copy is left in training mode")
    inputs = bench.data.inputs[:40]
    whole, three = (_logits(bench.model(stolen, batch_size=size), inputs) for size in (40, 3))
    law(whole.ndim == 2, f"a copy gives logits, (n, classes); got {whole.shape}")
    law(np.isfinite(whole).all(), "a copy's logits must be finite")
    moved = np.abs(whole - three).max() / max(np.abs(whole).max(), 1)
    law(moved <= ROUNDING, f"an answer depends on its neighbours in the batch: it moves by {moved:.2g}")


def _access(bench: _Bench) -> None:
    """Below the access that it needs, an attack is refused by name."""
    needs = bench.attack.needs
    if needs is Access.LABELS:
        return
    below = LADDER[LADDER.index(needs) - 1] if needs in LADDER[: LADDER.index(Access.LOGITS) + 1] else Access.LOGITS
    with refused(AccessError, "a view below what the attack needs", bench.name, needs.text):
        bench.attack.derive(restrict(bench.victim, below), bench.data)


def _data(bench: _Bench) -> None:
    """Data that are missing, of another kind or without the labels needed are refused by name."""
    if not bench.attack.needs_data:
        return
    with refused(ParameterError, "no data", bench.name):
        bench.attack.derive(restrict(bench.victim, bench.attack.needs))
    shape = (bench.data.inputs[0].size + 1,)
    table = Data(inputs=np.zeros((4, *shape), np.float32), labels=np.zeros(4, np.int64), name="a table",
                 domain=Domain(kind="tabular", shape=shape))  # fmt: skip
    with refused(ParameterError, "data of another shape", "a table"):
        bench.derive(data=table)
    if bench.data.domain.bounds is not None:
        low, high = bench.data.domain.bounds
        wide = replace(bench.data, inputs=bench.data.inputs + (high - low), name="data out of bounds",
                       domain=replace(bench.data.domain, bounds=None))  # fmt: skip
        with refused(ParameterError, "data out of the victim's bounds", "inputs must lie in"):
            bench.derive(data=wide)
    if bench.attack.needs_labels:
        bare = Data(inputs=bench.data.inputs, labels=None, domain=bench.data.domain, name="bare data")
        with refused(ParameterError, "data without labels", bench.name, "bare data"):
            bench.derive(data=bare)


def _budget(bench: _Bench) -> None:
    """What is asked is what is counted; a spent budget ends the asking, and the thief keeps what it has."""
    view = restrict(bench.victim, bench.attack.needs)
    whole = bench.attack.derive(view, bench.data)
    law(whole.effort.queries == view.asked, f"{view.asked} were asked, {whole.effort.queries} are told")
    if view.asked < 2:
        return
    # Of less, an attack that solves for its victim may have nothing yet.
    most = view.asked * 9 // 10
    view = restrict(bench.victim, bench.attack.needs, budget=most)
    try:
        stolen = bench.attack.derive(view, bench.data)
    except BudgetError as error:
        raise ConformanceError(f"a budget of {most} ends the attack and loses what it bought: {error}") from error
    law(0 < view.asked <= most, f"{view.asked} were asked with a budget of {most}")
    law(stolen.notes, "a budget that ended early is not told")
    law(bench.model(stolen).digest != bench.model(whole).digest, "fewer answers give the same copy")


def _progress(bench: _Bench) -> None:
    """Progress goes up, to what was said to be wanted."""
    told: list[tuple[int, int]] = []
    bench.derive(progress=lambda done, wanted: told.append((done, wanted)))
    if not told:
        return
    done = [one for one, _ in told]
    law(done == sorted(done), f"progress goes back: {told}")
    law(all(0 <= one <= wanted for one, wanted in told), f"more is done than wanted: {told}")
    law(told[-1][0] == told[-1][1], f"progress ends at {told[-1][0]} of {told[-1][1]}")


def _written(bench: _Bench) -> None:
    """A copy of no named architecture can be written as `.pt2` and as `.onnx`, and answers from there as here."""
    from locard.models import exported, onnx

    stolen = bench.derive()
    if not stolen.unnamed:
        return
    model, inputs = bench.model(stolen), bench.data.inputs[:40]
    here = _logits(model, inputs)
    with tempfile.TemporaryDirectory() as folder:
        for suffix, write in ((".pt2", exported.save), (".onnx", onnx.export)):
            path = Path(folder) / f"copy{suffix}"
            write(model, path)
            there = _logits(load(path, trust=True), inputs)
            moved = np.abs(here - there).max() / max(np.abs(here).max(), 1)
            law(moved <= ROUNDING, f"from a {suffix} file the copy answers otherwise: by {moved:.2g}")


def _threads(bench: _Bench) -> None:
    """A copy does not depend on how many threads add up its sums."""
    import torch

    from locard.models.fitting import reproducible
    from locard.models.torch_module import TorchModel

    class Steady(TorchModel):
        """Its own answers may hang on the threads, which is no fault of the attack's."""

        def _forward(self, x: np.ndarray) -> np.ndarray:
            with reproducible(0):
                return super()._forward(x)

    victim = Steady(bench.victim.module(), domain=bench.victim.domain, lineage=bench.victim.lineage)
    bench, usual, digests = replace(bench, victim=victim), torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            digests.append(bench.model(bench.derive(seed=3)).digest)
    finally:
        torch.set_num_threads(usual)
    law(digests[0] == digests[1], "two copies made with one seed, by one thread and by two, differ")


def _float64(bench: _Bench) -> None:
    """Of a victim in float64 the copy computes in float64, or it is refused in words."""
    import torch

    from locard.models.torch_module import TorchModel

    domain = replace(bench.victim.domain, dtype="float64")
    victim = TorchModel(copy.deepcopy(bench.victim.module()).double(), domain=domain, lineage=bench.victim.lineage)
    stolen = _told(replace(bench, victim=victim), "a victim in float64")
    if stolen is not None:
        types = {tensor.dtype for tensor in stolen.module.parameters()}
        law(types == {torch.float64}, f"a copy of a victim in float64 has weights of {types}")
        law(_logits(TorchModel(stolen.module, domain=domain), bench.data.inputs[:40]).dtype == np.float64,
            "a copy of a victim in float64 answers in less")  # fmt: skip


def _file(bench: _Bench) -> None:
    """A victim read from a file, whose layers are no layers of torch, is robbed too, or is refused in words."""
    stolen = _told(replace(bench, victim=_from_file(bench.victim)), "a victim from a .pt2 file")
    if stolen is not None:
        law(np.isfinite(_logits(bench.model(stolen), bench.data.inputs[:40])).all(), "a copy's logits must be finite")


def _told(bench: _Bench, whose: str) -> Stolen | None:
    """A copy of an unusual victim, or None where a message says why there is none."""
    try:
        return bench.derive()
    except LocardError:
        return None
    except Exception as error:
        raise ConformanceError(f"{whose} ends in {type(error).__name__} and not in words: {error}") from error


@functools.cache
def _from_file(victim: TorchModel) -> Any:
    """The same from a .pt2 file; it takes seconds to write, and most laws are tried on one victim."""
    from locard.models import exported

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "victim.pt2"
        exported.save(victim, path)
        return load(path, trust=True)


def _logits(model: Any, inputs: np.ndarray) -> np.ndarray:
    return restrict(model, Access.LOGITS).logits(inputs)


_LAWS: dict[str, Callable[[_Bench], None]] = {
    "named": _named,
    "same-seed": _same_seed,
    "papers": _papers,
    "own-memory": _own_memory,
    "answers": _answers,
    "access": _access,
    "data": _data,
    "budget": _budget,
    "progress": _progress,
    "written": _written,
    "threads": _threads,
    "float64": _float64,
    "file": _file,
}
ATTACK_LAWS = tuple(_LAWS)


def check_attack(
    name: str,
    law_name: str,
    *,
    params: dict[str, Any] | None = None,
    victim: TorchModel | None = None,
    data: Data | None = None,
) -> None:
    """Hold one registered attack to one law, on a small trained network.

    Args:
        name: the attack.
        law_name: one of `ATTACK_LAWS`.
        params: the attack's parameters, such as fewer epochs.
        victim: whose copy is made; None for `toy_network()`.
        data: the thief's labelled inputs, in the victim's domain; None for toy data that the victim never saw.

    Raises:
        ConformanceError: the law does not hold.
    """
    bench = _Bench(name=name, params=params or {}, attack=build(name, params), victim=victim or toy_network(),
                   data=data if data is not None else toy_data(300, seed=1))  # fmt: skip
    _LAWS[law_name](bench)
