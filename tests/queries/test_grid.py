"""The grid of QuRD: counted, built and run, every cell of it."""

import numpy as np
import pytest

from locard import engine
from locard.errors import ParameterError
from locard.models import restrict
from locard.models.callable import CallableModel
from locard.queries.negative_augment import NegativeAugment
from locard.queries.segments import Segments
from locard.queries.subsample import Subsample
from locard.records import Access, Data, Domain
from locard.representations.local_explanations import LocalExplanations
from locard.schemes import build
from locard.schemes._grid import grid
from locard.testing import SCHEME_LAWS, check_scheme, toy_data, toy_model

CELLS = {f"{cell.name}": cell for cell in grid(100) if cell.split == "test"}
DRAW = {"default": 100, "seed": 0, "population": None}


@pytest.mark.parametrize(("budget", "cells"), [(10, 76), (20, 76), (50, 76), (100, 96), (200, 96)])
def test_the_grid_has_as_many_cells_as_the_paper_evaluates(budget, cells):
    assert len(grid(budget)) == cells
    assert len({(cell.split, cell.name) for cell in grid(budget)}) == cells


@pytest.mark.parametrize("name", CELLS)
def test_every_cell_runs_and_tells_a_copy_from_a_stranger(name):
    cell = CELLS[name]
    params = cell.params | ({"sampler.steps": 50} if cell.scheme.startswith("boundary") else {})
    victim = toy_model(0, gradients=True)
    data = toy_data()
    if cell.scheme.startswith("boundary"):
        data = Data(inputs=data.inputs, labels=None, domain=data.domain, name="toy data")
    fp = engine.extract(victim, scheme=cell.scheme, data=data, queries=100, params=params)
    scheme = build(cell.scheme, params)
    assert fp.cost == 100
    own = scheme.similarity(fp, engine.respond(fp, toy_model(0, gradients=True)))
    assert own == pytest.approx(1, abs=1e-4)
    assert np.mean([scheme.similarity(fp, engine.respond(fp, toy_model(seed))) for seed in (1, 2, 3)]) < own


@pytest.mark.parametrize("law", SCHEME_LAWS)
@pytest.mark.parametrize("name", ["NegativeAugment/SAC", "NegativeSubsample10/ZLIME"])
def test_cells_with_parts_of_their_own_keep_the_laws(name, law):
    check_scheme(CELLS[name].scheme, law, params=CELLS[name].params, queries=100)


def test_masked_queries_are_explained_as_references_with_masks_are():
    view = restrict(toy_model(0), Access.LOGITS)
    flat = Subsample(masks=64).draw(view, toy_data(), n=128, **DRAW)
    kept = Segments(masks=64).draw(view, toy_data(), n=128, **DRAW)
    explain = LocalExplanations(answers="logits")
    ours, theirs = explain.record(view, flat)["weights"], explain.record(view, kept)["weights"]
    assert ours == pytest.approx(theirs, abs=1e-4)
    assert explain.cost(flat) == 128 == len(explain.inputs(flat))


def test_negative_seeds_are_mistakes():
    view, data = restrict(toy_model(0), Access.LABELS), toy_data()
    drawn = Subsample(masks=10, seeds="negative").draw(view, data, n=50, **DRAW)
    wrong = data.inputs[view.labels(data.inputs) != data.labels]
    # The first mask keeps all.
    for image in drawn.inputs[::10]:
        assert (wrong == image).reshape(len(wrong), -1).all(axis=1).any()


def test_texts_are_subsampled_by_their_words():
    domain = Domain(kind="text", shape=(), dtype="str")
    texts = np.array([f"a{i} b c d" for i in range(9)], dtype=object)
    data = Data(inputs=texts, labels=None, domain=domain, name="texts")
    model = CallableModel(lambda x: np.array([[len(t), 1.0] for t in x], np.float32), domain=domain, outputs="logits",
                          classes=2, name="length")  # fmt: skip
    drawn = Subsample(masks=10).draw(restrict(model, Access.LOGITS), data, n=30, **DRAW)
    assert drawn.extras["parts"].tolist() == [4, 4, 4]
    assert all(set(text.split()) <= set(" ".join(texts).split()) for text in drawn.inputs)
    assert LocalExplanations(answers="logits").record(restrict(model, Access.LOGITS), drawn)["weights"].shape == (12, 2)


def test_a_strangers_parts_are_checked():
    view = restrict(toy_model(0), Access.LOGITS)
    drawn = Subsample(masks=10).draw(view, toy_data(), n=30, **DRAW)
    explain = LocalExplanations()
    for extras, message in [
        ({"masks": drawn.extras["masks"][:2]}, "one mask for each of 30 queries"),
        ({"parts": np.ones(2, np.int64)}, "parts must be 3 whole numbers"),
        ({"parts": np.full(3, 10**6)}, "a reference must have 1 to"),
    ]:
        broken = type(drawn)(inputs=drawn.inputs, extras={**drawn.extras, **extras})
        with pytest.raises(ParameterError, match=message):
            explain.record(view, broken)


def erring(wrong, n=60):
    """Images and a model that gets the first `wrong` of them wrong."""
    data = toy_data(n)
    truth = {image.tobytes(): label for image, label in zip(data.inputs, data.labels, strict=True)}
    bad = {image.tobytes() for image in data.inputs[:wrong]}
    labels = lambda x: np.array([(truth.get(i.tobytes(), 0) + (i.tobytes() in bad)) % 5 for i in x])  # noqa: E731
    model = CallableModel(labels, domain=data.domain, outputs="labels", classes=5, name="erring")
    return restrict(model, Access.LABELS), data


def test_enough_mistakes_are_not_augmented():
    view, data = erring(30)
    drawn = NegativeAugment().draw(view, data, n=20, **DRAW)
    assert (view.labels(drawn.inputs) != 0).any()
    assert {image.tobytes() for image in drawn.inputs} <= {image.tobytes() for image in data.inputs[:30]}


def test_too_few_mistakes_are_mixed_and_mirrored():
    view, data = erring(5)
    drawn = NegativeAugment().draw(view, data, n=30, **DRAW).inputs
    assert {image.tobytes() for image in drawn[:5]} == {image.tobytes() for image in data.inputs[:5]}
    for start in (5, 20):
        mixed, mirrored, upside = (drawn[at : at + 5] for at in (start, start + 5, start + 10))
        assert np.array_equal(mirrored[: len(upside)], mixed[: len(upside), :, :, ::-1]) or start == 20
        if start == 5:
            assert np.array_equal(upside, mixed[:, :, ::-1])
        pixels = data.inputs[:5]
        assert all((pixels == pixel).any() for pixel in mixed[0].ravel()[:10])


def test_negative_augment_refuses_what_it_cannot_mix():
    view, data = erring(1)
    with pytest.raises(ParameterError, match="misclassifies 1 of 60 inputs of toy data, and mixing takes 2"):
        NegativeAugment().draw(view, data, n=20, **DRAW)
    with pytest.raises(ParameterError, match="mistakes are found by true labels"):
        NegativeAugment().draw(
            view, Data(inputs=data.inputs, labels=None, domain=data.domain, name="bare"), n=20, **DRAW
        )
    rows = Data(inputs=np.zeros((9, 2), np.float32), labels=np.zeros(9, np.int64), name="rows",
                domain=Domain(kind="tabular", shape=(2,)))  # fmt: skip
    with pytest.raises(ParameterError, match="negative-augment mixes images; rows holds tabular"):
        NegativeAugment().draw(view, rows, n=20, **DRAW)
