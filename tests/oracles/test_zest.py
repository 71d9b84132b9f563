"""Zest against the oracles of its card, and against its formulas in plain loops."""

import math
from dataclasses import replace

import numpy as np
import pytest

from locard import engine
from locard.errors import BudgetError, ParameterError
from locard.fingerprint import Fingerprint
from locard.models import Session, restrict, view
from locard.models.callable import CallableModel
from locard.queries import Queries
from locard.queries.segments import Segments
from locard.records import Access, Data, Domain
from locard.representations.local_explanations import LocalExplanations, explain
from locard.schemes import build
from locard.testing import toy_data, toy_model

SMALL = {"masks": 64}
TABLE = Domain(kind="tabular", shape=(6,))


def extract(model, data=None, *, queries: int | None = 320, **params):
    params = {**SMALL, **params}
    return engine.extract(model, scheme="zest", data=data or toy_data(), params=params, queries=queries)


def d(fp, model):
    return 1 - build("zest", fp.params).similarity(fp, engine.respond(fp, model))


def scores_of(function, name, classes=5):
    """A model that answers a function of the toy victim's logits."""
    inner = restrict(toy_model(0), Access.LOGITS)
    return CallableModel(
        lambda x: function(inner.logits(x)), domain=toy_data().domain, outputs="logits", classes=classes, name=name
    )


def centred_table(n=40):
    """A table whose columns have mean 0, so that a masked entry is 0."""
    x = np.random.default_rng(0).integers(-8, 9, (n // 2, 6)).astype(np.float32)
    return Data(inputs=np.concatenate([x, -x]), labels=None, domain=TABLE, name="a centred table")


def linear(beta, name="linear"):
    return CallableModel(lambda x: x @ beta, domain=TABLE, outputs="logits", classes=beta.shape[1], name=name)


def bits(packed, count):
    """The packed masks of one reference, read bit by bit: the highest bit of a byte comes first."""
    return [[byte >> (7 - bit) & 1 for byte in mask for bit in range(8)][:count] for mask in packed.tolist()]


def plain_signature(fp, model, kind):
    """The card's steps 3 to 5 with loops, and SciPy's least squares."""
    from scipy.linalg import lstsq

    ask = getattr(restrict(model, Access.LOGITS), kind)
    fill = fp.queries["fill"]
    parts = []
    for image, segments, packed in zip(*(fp.queries[name] for name in ("inputs", "segments", "masks")), strict=True):
        masks = bits(packed, int(segments.max()) + 1)
        asked = np.stack([image] * len(masks))
        for row, mask in enumerate(masks):
            for y in range(8):
                for x in range(8):
                    if not mask[segments[0, y, x]]:
                        asked[row, 0, y, x] = fill[0, 0, 0]
        parts.append(lstsq(np.array(masks, float), ask(asked).astype(float))[0])
    return np.concatenate(parts)


@pytest.mark.parametrize("kind", ["probabilities", "logits"])
def test_the_score_is_the_cards_formula_on_the_same_masked_inputs(kind):
    fp = extract(toy_model(0), answers=kind, queries=192)
    suspect = toy_model(1)
    ours, theirs = plain_signature(fp, toy_model(0), kind), plain_signature(fp, suspect, kind)
    assert fp.record["weights"] == pytest.approx(ours, abs=1e-5 * np.abs(ours).max())
    a, b = ours.ravel().tolist(), theirs.ravel().tolist()
    product = sum(x * y for x, y in zip(a, b, strict=True))
    expected = 1 - product / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b))
    assert d(fp, suspect) == pytest.approx(expected, abs=1e-5)


def test_a_model_is_at_distance_0_from_itself_with_the_same_masks(tmp_path):
    fp = extract(toy_model(0))
    again = Fingerprint.load(fp.save(tmp_path / "fp.locard"))
    assert d(again, toy_model(0)) == pytest.approx(0, abs=1e-12)


def test_a_model_linear_in_the_mask_gives_its_coefficients_back():
    beta = np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32)
    fp = extract(linear(beta), centred_table(), answers="logits", masks=1000, queries=3000)
    expected = np.concatenate([reference[:, None] * beta for reference in fp.queries["inputs"]])
    assert fp.record["weights"] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("segments", [20, 400])
def test_plain_least_squares_give_beta_to_numerical_precision(segments):
    source = np.random.default_rng(2)
    kept, beta = source.random((1000, segments)) < 0.5, source.normal(size=(segments, 4))
    assert explain(kept, kept @ beta) == pytest.approx(beta, abs=1e-6)


def test_masks_that_cannot_tell_segments_apart_give_the_shortest_solution():
    from scipy.linalg import lstsq

    source = np.random.default_rng(3)
    kept, answers = source.random((6, 10)) < 0.5, source.normal(size=(6, 3))
    assert explain(kept, answers) == pytest.approx(lstsq(kept.astype(float), answers)[0], abs=1e-5)


@pytest.mark.parametrize("factor", [0.1, 7.0])
def test_a_positive_factor_on_the_answers_changes_nothing(factor):
    fp = extract(toy_model(0), answers="logits")
    assert d(fp, scores_of(lambda z: factor * z, "scaled")) == pytest.approx(0, abs=1e-6)


def test_permuted_classes_are_found_when_aligned_and_only_then():
    permuted = scores_of(lambda z: z[:, [3, 0, 4, 1, 2]], "permuted")
    assert d(extract(toy_model(0), align=True), permuted) == pytest.approx(0, abs=1e-6)
    assert d(extract(toy_model(0)), permuted) > 0.1


def test_a_subset_of_the_classes_is_found_when_aligned():
    beta = np.random.default_rng(4).normal(size=(6, 4)).astype(np.float32)
    fp = extract(linear(beta), centred_table(), answers="logits", align=True)
    assert d(fp, linear(beta[:, [2, 0]], "two of four")) == pytest.approx(0, abs=1e-6)
    assert d(fp, linear(-beta[:, [2, 0]], "another")) > 0.1


def test_another_number_of_classes_is_refused_before_anything_is_asked():
    fp, suspect = extract(toy_model(0)), scores_of(lambda z: z[:, :3], "a triage model", classes=3)
    session = Session(suspect, Access.PROBABILITIES)
    with pytest.raises(ParameterError, match=r"victim has 5 of them, a triage model has 3\. .* zest with align=true"):
        build("zest", fp.params).respond(fp, view(session, Access.PROBABILITIES))
    assert session.asked == 0
    suspect.classes = None
    with pytest.raises(ParameterError, match="two records of one shape"):
        d(fp, suspect)


def test_a_derived_model_is_nearer_than_independent_ones():
    fp = extract(toy_model(0))
    derived = [d(fp, toy_model(0, noise=noise)) for noise in (0.02, 0.05, 0.1)]
    assert max(derived) < min(d(fp, toy_model(seed)) for seed in range(1, 11))


def test_the_papers_size_is_the_default():
    assert build("zest").default_queries == 128 * 1000
    assert build("zest", SMALL).default_queries == 128 * 64
    fp = engine.extract(toy_model(0), scheme="zest", data=toy_data(), params={"masks": 16})
    assert fp.queries["masks"].shape[:2] == (128, 16)


def test_each_distinct_mask_is_asked_once():
    fp = extract(toy_model(0), masks=600, queries=1200)
    distinct = sum(len({tuple(mask) for mask in bits(packed, int(segments.max()) + 1)})
                   for packed, segments in zip(fp.queries["masks"], fp.queries["segments"], strict=True))  # fmt: skip
    assert fp.cost == distinct < 1200
    session = Session(toy_model(1), Access.PROBABILITIES, budget=distinct)
    build("zest", fp.params).respond(fp, view(session, Access.PROBABILITIES))
    assert session.asked + session.from_journal == distinct
    with pytest.raises(BudgetError, match="budget of 100 queries"):
        engine.verify(fp, toy_model(1), budget=100)


def test_words_of_a_text_are_left_out():
    worth = {"good": (2.0, 0.0), "bad": (0.0, 3.0), "film": (0.5, 0.25)}

    def answer(texts):
        return np.array([np.sum([worth[word] for word in text.split()] or [(0, 0)], axis=0) for text in texts])

    domain = Domain(kind="text", shape=(), dtype="str")
    texts = np.array(["good film", "", "bad film bad", "good", "film good bad film"], dtype=object)
    data = Data(inputs=texts, labels=None, domain=domain, name="reviews")
    model = CallableModel(answer, domain=domain, outputs="logits", classes=2, name="a lexicon")
    fp = extract(model, data, answers="logits", queries=None)
    assert sorted(fp.queries["inputs"]) == ["bad film bad", "film good bad film", "good film"]
    words = [word for text in fp.queries["inputs"] for word in text.split()]
    assert fp.record["weights"] == pytest.approx(np.array([worth[word] for word in words]), abs=1e-6)
    assert d(fp, model) == pytest.approx(0, abs=1e-12)


def test_large_inputs_are_asked_in_pieces(monkeypatch):
    whole = extract(toy_model(0))
    monkeypatch.setattr("locard.representations.local_explanations.PIECE", 7 * 64 * 4)
    rows = []
    model = toy_model(0)
    answer = model._function  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setattr(model, "_function", lambda x: rows.append(len(x)) or answer(x))
    assert extract(model).record["weights"] == pytest.approx(whole.record["weights"], abs=1e-5)
    # The other batch is the check of the victim's accuracy.
    assert sorted(set(rows))[-2] == 7


def test_wrong_parameters_are_refused():
    with pytest.raises(ParameterError, match="unknown kind of answers 'labels'; did you mean 'values'"):
        build("zest", {"answers": "labels"})
    with pytest.raises(ParameterError, match=r"masks must lie in \[2, 1000000\]; got 1"):
        build("zest", {"masks": 1})
    with pytest.raises(ParameterError, match=r"pieces must lie in \[2, 4096\]; got 1"):
        build("zest", {"pieces": 1})


def test_queries_without_masks_are_refused():
    with pytest.raises(ParameterError, match="local explanations need references with masks: use the sampler 'seg"):
        engine.extract(toy_model(0), scheme="random+local-explanations+flat-cosine", data=toy_data())


WRONG = {
    "masks of another type": ("masks", lambda a: a.astype(np.int64), "masks must be bytes"),
    "masks of fewer references": ("masks", lambda a: a[:-1], "masks must be bytes"),
    "no segments": ("segments", lambda a: None, "other references need 'segments'"),
    "segments of another shape": ("segments", lambda a: a[:, :, :-1], "segments must have shape"),
    "a negative segment": ("segments", lambda a: a - 1, "segments must be numbered from 0"),
    "more segments than bits": ("segments", lambda a: a + 999, "a reference must have 1 to"),
    "fill of another shape": ("fill", lambda a: np.zeros((3, 3), a.dtype), "fill must have shape"),
    "fill of another type": ("fill", lambda a: a.astype(np.int64), "fill must have shape .* got int64"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_strangers_damaged_queries_end_in_one_clear_error(case):
    name, damage, message = WRONG[case]
    fp = extract(toy_model(0))
    queries = {**fp.queries, name: damage(fp.queries[name])}
    damaged = replace(fp, queries={key: array for key, array in queries.items() if array is not None})
    with pytest.raises(ParameterError, match=message):
        engine.respond(damaged, toy_model(1))


def test_the_representation_makes_its_inputs_piece_by_piece():
    drawn = Segments(masks=16).draw(
        restrict(toy_model(0), Access.LABELS), toy_data(), n=32, default=100, seed=0, population=None
    )
    assert isinstance(drawn, Queries)
    assert LocalExplanations().inputs(drawn) is None
