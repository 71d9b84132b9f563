"""The grid of QuRD: counted, built and run, every cell of it."""

import re

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
from locard.schemes import QueryScheme, build
from locard.schemes._grid import grid
from locard.testing import SCHEME_LAWS, check_scheme, toy_data, toy_model

CELLS = {f"{cell.name}": cell for cell in grid(100) if cell.split == "test"}
DRAW = {"default": 100, "seed": 0, "population": None}


@pytest.mark.parametrize(("budget", "cells"), [(10, 76), (20, 76), (50, 76), (100, 96), (200, 96)])
def test_the_grid_has_as_many_cells_as_the_paper_evaluates(budget, cells):
    assert len(grid(budget)) == cells
    assert len({(cell.split, cell.name) for cell in grid(budget)}) == cells


def test_a_budget_that_a_sampler_cannot_meet_leaves_it_out():
    assert {cell.name.split("/")[0] for cell in grid(15)} == {"Random", "Negative", "NegativeAugment", "Boundary"}
    assert len(grid(150)) == 76


@pytest.mark.parametrize("budget", [10, 100])
def test_every_cell_builds(budget):
    for cell in grid(budget):
        scheme = build(cell.scheme, cell.params)
        assert isinstance(scheme, QueryScheme)
        assert scheme.metric == cell.scheme.rsplit("+", 1)[1]
        masks = re.search("Subsample([0-9]+)", cell.name)
        if masks:
            assert isinstance(scheme.sampler, Subsample)
            assert scheme.sampler.masks == int(masks[1])


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
    assert explain.cost(flat) == 128
    assert explain.inputs(flat) is flat.inputs


def test_negative_seeds_are_mistakes():
    view, data = restrict(toy_model(0), Access.LABELS), toy_data()
    drawn = Subsample(masks=10, seeds="negative").draw(view, data, n=50, **DRAW)
    wrong = data.inputs[view.labels(data.inputs) != data.labels]
    # The first mask keeps all.
    assert known(drawn.inputs[::10]) <= known(wrong)


def test_what_is_masked_becomes_the_mean_of_all_data():
    view, data = erring(30)
    drawn = Subsample(masks=10, seeds="negative").draw(view, data, n=50, **DRAW).inputs.reshape(5, 10, 1, 8, 8)
    mean = data.domain.deliver(data.inputs.mean(keepdims=True))[0, 0, 0, 0]
    assert ((drawn == drawn[:, :1]) | (drawn == mean)).all()
    assert (drawn == mean).any()


def test_too_few_negative_seeds_are_said():
    view, data = erring(3)
    sampler = Subsample(masks=10, seeds="negative")
    with pytest.raises(
        ParameterError, match="5 misclassified inputs of two segments or more are needed, the data hold 3"
    ):
        sampler.draw(view, data, n=50, **DRAW)
    with pytest.raises(ParameterError, match="must be a multiple of 10; got 55"):
        sampler.draw(view, data, n=55, **DRAW)
    with pytest.raises(ParameterError, match="negative seeds are found by true labels, and bare has none"):
        sampler.draw(view, Data(inputs=data.inputs, labels=None, domain=data.domain, name="bare"), n=50, **DRAW)
    with pytest.raises(ParameterError, match="unknown seeds 'negatives'; did you mean 'negative'"):
        Subsample(seeds="negatives")


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
    answers = dict(zip(map(np.ndarray.tobytes, data.inputs), data.labels + (np.arange(n) < wrong), strict=True))
    model = CallableModel(lambda x: np.array([answers[image.tobytes()] % 5 for image in x]), domain=data.domain,
                          outputs="labels", classes=5, name="erring")  # fmt: skip
    return restrict(model, Access.LABELS), data


def known(images):
    return {image.tobytes() for image in images}


def test_enough_mistakes_are_not_augmented():
    view, data = erring(30)
    drawn = NegativeAugment().draw(view, data, n=20, **DRAW).inputs
    assert known(drawn) <= known(data.inputs[:30])
    assert len(known(drawn)) == 20


@pytest.mark.parametrize("n", [5, 6, 19, 20, 21, 35, 48])
def test_too_few_mistakes_are_mixed_and_mirrored(n):
    view, data = erring(5)
    drawn = NegativeAugment().draw(view, data, n=n, **DRAW).inputs
    assert len(drawn) == n
    assert known(drawn[:5]) == known(data.inputs[:5])
    assert not known(drawn[5:]) & known(data.inputs)
    for start in range(5, n, 15):
        mixed, across, down = (drawn[at : at + 5] for at in range(start, start + 15, 5))
        assert np.array_equal(across, mixed[: len(across), :, :, ::-1])
        assert np.array_equal(down, mixed[: len(down), :, ::-1])
        for image in mixed:
            # Each pixel is the same pixel of one of two mistakes.
            same = image == data.inputs[:5]
            assert any((same[i] | same[j]).all() for i in range(5) for j in range(i))


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
