"""Single functions of released codes, taken out of a checkout as it lies, and what they need to run here.

Their files import packages that are missing, ask for a GPU or start to work when imported; so a file is parsed, and of
its statements only those named are executed, in a namespace with what they call.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import io
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch
from _qurd import seeded
from scipy import spatial, stats

from locard.errors import ParameterError

# What their files import under these names.
IMPORTED = {"np": np, "torch": torch, "nn": torch.nn, "F": torch.nn.functional, "spatial": spatial}


def taken(source: str, names: Iterable[str], **given: Any) -> SimpleNamespace:
    """The functions, classes and assignments of those names, the last of each name, executed in the file's order.

    Args:
        source: text of a file of theirs.
        names: of top-level statements.
        given: what the statements find beside `IMPORTED`.

    Raises:
        ParameterError: the file has none of that name.
    """
    found: dict[str, tuple[int, ast.stmt]] = {}
    for place, statement in enumerate(ast.parse(source).body):
        for name in _names(statement):
            if name in names:
                found[name] = place, statement
    missing = set(names) - set(found)
    if missing:
        raise ParameterError(f"the checkout is not the one this script knows: it has no {', '.join(sorted(missing))}")
    space = {**IMPORTED, **given}
    run([statement for _, statement in sorted(found.values(), key=lambda pair: pair[0])], space)
    return SimpleNamespace(**{name: space[name] for name in names}, space=space)


def run(statements: Sequence[ast.stmt], space: dict[str, Any]) -> None:
    """Execute statements of theirs."""
    module = ast.fix_missing_locations(ast.Module(body=[*statements], type_ignores=[]))
    exec(compile(module, "<checkout>", "exec"), space)  # noqa: S102 running their code is what this is for


def method(source: str, of: str, name: str, **given: Any) -> Callable[..., Any]:
    """One method of a class of theirs, as a function."""
    classes = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == of]
    bodies = [node for one in classes for node in one.body if name in _names(node)]
    if not bodies:
        raise ParameterError(f"the checkout is not the one this script knows: it has no {of}.{name}")
    space = {**IMPORTED, **given}
    run(bodies[-1:], space)
    return space[name]


def statements(notebook: Path, *marks: str) -> list[ast.stmt]:
    """The statements of the first cells of a notebook that hold each of the marks, in the order of the marks."""
    known = json.loads(notebook.read_text())["cells"]
    texts = ["".join(cell["source"]) for cell in known if cell["cell_type"] == "code"]
    chosen = [next((text for text in texts if mark in text), "") for mark in marks]
    if not all(chosen):
        missing = marks[chosen.index("")]
        raise ParameterError(f"{notebook} is not the notebook this script knows: none of its cells has {missing!r}")
    return [node for text in chosen for node in ast.parse(text).body]


def timed(theirs: Callable[[], Any], ours: Callable[[], Any], repeats: int = 1) -> tuple[Any, Any, tuple[float, float]]:
    """What each gives, and the least processor seconds of each; they run by turns."""
    results, seconds = [None, None], [float("inf")] * 2
    for _ in range(repeats):
        for place, act in enumerate((theirs, ours)):
            start = time.process_time()
            results[place] = act()
            seconds[place] = min(seconds[place], time.process_time() - start)
    return results[0], results[1], (seconds[0], seconds[1])


def ending(act: Callable[[], Any], otherwise: str, *errors: type[Exception]) -> str:
    """The name of the error that it ends with, or what it makes otherwise."""
    try:
        act()
    except errors as error:
        return type(error).__name__
    return otherwise


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """They print as they go, and ask for a GPU; here `cuda` leaves things where they are."""
    with (
        contextlib.redirect_stdout(io.StringIO()),
        mock.patch.object(torch.Tensor, "cuda", lambda tensor: tensor),
        mock.patch.object(torch.nn.Module, "cuda", lambda module: module),
    ):
        yield


class Counted(torch.nn.Module):
    """A model that counts the rows it is asked."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module, self.rows = module, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As the model."""
        self.rows += len(x)
        return self.module(x)


class Patches:
    """SAC-m's images: where it patches them, and what becomes of them on the way through its file."""

    def __init__(self, checkout: Path) -> None:
        text = (checkout / "cut_mix.py").read_text()
        self.box = taken(text, ["rand_bbox"]).rand_bbox
        self._written = [node for node in ast.parse(text).body if "transpose" in ast.unparse(node)]
        stored = taken((checkout / "dataset.py").read_text(), ["dataset1"], Dataset=torch.utils.data.Dataset,
                       transform_test=lambda image: image).dataset1  # fmt: skip
        self._read = object.__new__(stored)

    def boxes(self, side: int, draws: int) -> set[tuple[int, ...]]:
        """The different patches of so many draws, with the name that NumPy has dropped put back."""
        source = np.random.default_rng(0)
        with (
            mock.patch.object(np, "int", int, create=True),
            mock.patch.object(np.random, "randint", source.integers),
        ):
            return {tuple(map(int, self.box((1, 3, side, side), 0.5))) for _ in range(draws)}

    def read_again(self, images: np.ndarray) -> np.ndarray:
        """(n, c, h, w) images as a model gets them."""
        space: dict[str, Any] = {"imgs": torch.from_numpy(images)}
        run(self._written, space)
        self._read.images, self._read.labels = space["imgs"].numpy(), np.zeros(len(images), np.int64)
        # Their transform takes bytes with the channels last.
        return np.stack([self._read[i][0] for i in range(len(images))]).transpose(0, 3, 1, 2) / 255


class Trajectories:
    """ADV-TRA's walks through a model, with its settings for CIFAR-10, and the sizes of the steps that were made."""

    def __init__(self, checkout: Path, module: torch.nn.Module, x: np.ndarray, own: np.ndarray, classes: int) -> None:
        names = ["capture", "next_adv_sample", "generate_unilateral_tra", "generate_bilateral_tra",
                 "generate_all_classes"]  # fmt: skip
        self._theirs = taken((checkout / "utils" / "adv_gen.py").read_text(), names, copy=copy)
        self._module, self._x, self._own = module, torch.from_numpy(x), torch.from_numpy(own)[:, None]
        self._classes, self.sizes, step = classes, [], self._theirs.next_adv_sample

        def noted(image: torch.Tensor, size: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
            self.sizes.append(float(size))
            return step(image, size, gradient)

        self._theirs.space["next_adv_sample"] = noted

    def walks(self, targets: np.ndarray, sizes: list[float]) -> tuple[np.ndarray, np.ndarray]:
        """(n, steps, *shape) points and (n, steps) labels, with the sizes forwards and then backwards."""
        steps = [*map(torch.tensor, sizes)]
        found = [self._theirs.generate_bilateral_tra(self._module, steps, image[None].clone(), target)
                 for image, target in zip(self._x, torch.from_numpy(targets)[:, None], strict=True)]  # fmt: skip
        points = np.stack([points.detach().numpy()[1:] for points, _ in found])
        return points, np.array([labels[1:] for _, labels in found])

    def all(self, first: float, crossed: int) -> list[int]:
        """The number of points of each trajectory through so many classes that is found from that first step."""
        options = SimpleNamespace(length=4, device="cpu", factor_lc=0.9, factor_re=0.95, tra_lr=0.05,
                                  max_iteration=300, num_classes=self._classes, tra_classes=crossed,
                                  initial_stepsize=first)  # fmt: skip
        self.sizes.clear()
        with mock.patch.object(np.random, "choice", np.random.default_rng(0).choice):
            made = [self._theirs.generate_all_classes(self._module, image[None].clone(), label[0], options)
                    for image, label in zip(self._x, self._own, strict=True)]  # fmt: skip
        return [sum(map(len, found[0])) for found in made if found is not None]


class BlindWalks:
    """Dataset inference's margins of a model, walked with given noises.

    Args:
        checkout: theirs.
        noise: (images, 10, *shape) for "uniform", "gaussian" and "laplace".
        inputs: (images, *shape).
        classes: (images,).
    """

    def __init__(self, checkout: Path, noise: dict[str, np.ndarray], inputs: np.ndarray, classes: np.ndarray) -> None:
        names = ["rand_steps", "norms", "norms_l1_squeezed", "norms_l2_squeezed", "norms_linf_squeezed"]
        walks = vars(taken((checkout / "src" / "attacks.py").read_text(), names, time=time))
        features = (checkout / "src" / "generate_features.py").read_text()
        self._measure = taken(features, ["get_random_label_only"], device="cpu", **walks).get_random_label_only
        self._noise, self._loader = noise, [(torch.from_numpy(inputs), torch.from_numpy(classes))]

    def margins(self, module: torch.nn.Module) -> np.ndarray:
        """(images, 10, 3); a `RuntimeError` where PyTorch refuses to write a mask through itself."""
        given = {norm: iter(torch.from_numpy(draws).unbind(1)) for norm, draws in self._noise.items()}
        uniform = SimpleNamespace(uniform_=lambda *_: next(given["uniform"]).clone())
        images = len(self._loader[0][0])
        with (
            mock.patch.object(torch, "empty_like", return_value=uniform),
            mock.patch.object(torch, "normal", side_effect=lambda *_, **__: next(given["gaussian"]).clone()),
            mock.patch.object(np.random, "laplace", side_effect=lambda **_: next(given["laplace"]).numpy().copy()),
        ):
            options = SimpleNamespace(batch_size=images, regressor_embed=0, dataset="CIFAR10")
            return self._measure(options, self._loader, module, num_images=images).numpy()

    def mended(self, module: torch.nn.Module) -> np.ndarray:
        """The same, where a mask that is written through itself is copied first."""
        put = torch.Tensor.__setitem__

        def written(tensor: torch.Tensor, key: Any, value: Any) -> None:
            put(tensor, key.clone() if key is tensor else key, value)

        with mock.patch.object(torch.Tensor, "__setitem__", written):
            return self.margins(module)


class Notebook:
    """Dataset inference's notebook, without plots."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._space = {**IMPORTED, "tqdm": Still, "ttest_ind": stats.ttest_ind, "v_type": "rand", "split_index": 500,
                       "names": ["teacher"], "mean_cifar": 0.0, "std_cifar": 1.0}  # fmt: skip

    def rows(self, cube: torch.Tensor) -> np.ndarray:
        """The features that it makes of (2000, 10, 3) margins, private before public: (1000, 30) of the private."""
        self._space |= {"trains": {"teacher": cube[:1000]}, "tests": {"teacher": cube[1000:]}}
        run(statements(self._path, "trains_n = {}"), self._space)
        return self._space["trains_n"]["teacher"].numpy()

    def p_value(self, margins: np.ndarray, seed: int, *, mended: bool = False) -> float:
        """Harmonic mean of its 100 p-values on 10 rows of each kind.

        Args:
            margins: (2000, 30), private before public.
            seed: of weights and rows.
            mended: with rows of one image each.
        """
        cube = torch.from_numpy(margins.reshape(2000, 3, 10).transpose(0, 2, 1).copy())
        self._space |= {"mean_cifar": cube[:1000].mean(dim=(0, 1)), "std_cifar": cube[:1000].std(dim=(0, 1))}
        self.rows(cube)
        for kind in ("trains", "tests") if mended else ():
            self._space[f"{kind}_n"]["teacher"] = self._space[kind]["teacher"].reshape(1000, 30)
        marks = ["n_ex = split_index", "model = nn.Sequential", "with tqdm(range(1000))", "def get_p(",
                 "outputs_tr = {}", "outputs_tr[name][split_index:]"]  # fmt: skip
        with seeded(seed):
            run(statements(self._path, *marks), self._space)
            ends = self._space["outputs_tr"]["teacher"], self._space["outputs_te"]["teacher"]
            return float(stats.hmean(self._space["get_p_values"](10, *ends, 100)))


class Still:
    """What they iterate over, without a bar."""

    def __init__(self, items: Any) -> None:
        self.items = items

    def __enter__(self) -> Still:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to close."""

    def __iter__(self) -> Iterator[Any]:
        return iter(self.items)

    def set_description(self, text: str) -> None:
        """Say nothing."""


class Answering:
    """A model as ModelDiff asks one."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.module = module

    def batch_forward(self, inputs: np.ndarray) -> torch.Tensor:
        """Logits."""
        with torch.no_grad():
            return self.module(torch.from_numpy(inputs))


def modeldiffs(checkout: Path) -> tuple[Callable[..., np.ndarray], Callable[[Answering, Answering, np.ndarray], float]]:
    """The notebook's decision distances, and the similarity that the class gives by default."""
    space: dict[str, Any] = {**IMPORTED, "Utils": taken((checkout / "utils.py").read_text(), ["Utils"]).Utils}
    cell = statements(checkout / "evaluate.ipynb", "def compute_ddv(")
    run([node for node in cell if _names(node) == ["compute_ddv"]], space)
    text = (checkout / "modeldiff.py").read_text()
    alike = SimpleNamespace(mtx_similar1=method(text, "ModelDiff", "mtx_similar1"))
    compare, matrix = (method(text, "ModelDiff", f"compute_{name}", ModelDiff=alike) for name in
                       ("similarity_with_ddm", "ddm"))  # fmt: skip
    silent = SimpleNamespace(info=lambda _: None, debug=lambda _: None)

    def similarity(a: Answering, b: Answering, inputs: np.ndarray) -> float:
        made = SimpleNamespace(model1=a, model2=b, logger=silent, compute_ddm=lambda model, at: matrix(None, model, at))
        return float(compare(made, inputs))

    return space["compute_ddv"], similarity


def _names(statement: ast.stmt) -> list[str]:
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return [statement.name]
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]
