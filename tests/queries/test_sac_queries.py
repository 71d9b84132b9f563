"""SAC's two rarer ways to ask: mistakes by contrast, and compressed images."""

import io

import numpy as np
import pytest

from locard import engine
from locard.errors import ParameterError
from locard.models import restrict
from locard.queries import Population
from locard.queries.contrast import Contrast
from locard.queries.jpeg import Jpeg, compressed
from locard.records import Access, Data, Domain
from locard.schemes import QueryScheme, build
from locard.testing import SCHEME_LAWS, check_scheme, toy_data, toy_model

pytest.importorskip("PIL.Image")
DRAW = {"default": 100, "seed": 0, "population": None}


def views(*models):
    return tuple(restrict(model, Access.LABELS) for model in models)


@pytest.fixture(scope="module")
def population():
    return Population(derived=views(*(toy_model(0, noise=noise) for noise in (0.05, 0.1, 0.2))),
                      independent=views(*(toy_model(seed) for seed in range(50, 54))))  # fmt: skip


@pytest.mark.parametrize("law", SCHEME_LAWS)
@pytest.mark.parametrize("variant", ["w", "jc"])
def test_both_variants_keep_the_laws(variant, law):
    check_scheme("sac", law, params={"variant": variant})


def test_mistakes_come_by_what_they_tell(population):
    victim, data = restrict(toy_model(0), Access.LABELS), toy_data()
    drawn = Contrast().draw(victim, data, n=60, **{**DRAW, "population": population})
    said = victim.labels(drawn.inputs)
    worth = [np.mean([model.labels(x[None])[0] == label for model in population.derived])
             - np.mean([model.labels(x[None])[0] == label for model in population.independent])
             for x, label in zip(drawn.inputs, said, strict=True)]  # fmt: skip
    assert drawn.extras["worth"] == pytest.approx(worth)
    assert (np.diff(worth) <= 1e-12).all()
    wrong = np.flatnonzero(victim.labels(data.inputs) != data.labels)
    all_worth = [np.mean([model.labels(data.inputs[wrong]) == victim.labels(data.inputs[wrong]) for model in models],
                         axis=0) for models in (population.derived, population.independent)]  # fmt: skip
    best = np.sort(all_worth[0] - all_worth[1])[::-1]
    assert drawn.extras["worth"] == pytest.approx(best[:60])
    everything = Contrast().draw(victim, data, n=None, **{**DRAW, "default": 10**6, "population": population})
    assert everything.extras["worth"] == pytest.approx(best[best > 0])
    assert len(everything.inputs) < len(wrong)


def test_contrast_needs_other_models_and_enough_mistakes(population):
    with pytest.raises(ParameterError, match="chooses its queries with other models: give a population"):
        engine.extract(toy_model(0), scheme="sac", data=toy_data(), params={"variant": "w"})
    right = restrict(toy_model(0), Access.LABELS).labels(toy_data().inputs)
    flawless = Data(inputs=toy_data().inputs, labels=right, domain=toy_data().domain, name="flawless")
    with pytest.raises(
        ParameterError, match="10 mistakes of the victim that its copies repeat more often than other models are nee"
    ):
        engine.extract(toy_model(0), scheme="sac", data=flawless, params={"variant": "w"}, population=population)


def test_compressed_images_are_pillows():
    from PIL import Image

    data = toy_data()
    drawn = Jpeg().draw(restrict(toy_model(0), Access.LABELS), data, n=40, **DRAW)
    sources = {image.tobytes(): image for image in data.inputs}
    assert not any(image.tobytes() in sources for image in drawn.inputs)
    image = np.rint(data.inputs[0] * 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(image[0]).save(file, "JPEG", quality=25)
    assert np.array_equal(compressed(image, 25)[0], np.asarray(Image.open(file)))
    mean = np.abs(drawn.inputs[:, None] - data.inputs[None]).mean(axis=(2, 3, 4)).min(axis=1)
    assert (mean < 0.1).all()


def test_colour_images_keep_their_shape_and_grey_quality_matters():
    colour = np.random.default_rng(0).integers(0, 256, (3, 16, 16)).astype(np.uint8)
    assert compressed(colour, 25).shape == (3, 16, 16)
    smooth = np.kron(np.arange(16).reshape(1, 4, 4) * 16, np.ones((1, 4, 4))).astype(np.uint8)
    error = [np.abs(compressed(smooth, q).astype(int) - smooth).mean() for q in (5, 25, 95)]
    assert error[0] > error[1] > error[2]


def test_whole_numbers_stay_what_the_decoder_gave():
    data = toy_data(20)
    whole = Data(inputs=np.rint(data.inputs * 100).astype(np.int32), labels=None, name="percentages",
                 domain=Domain(kind="image", shape=(1, 8, 8), dtype="int32", bounds=(0, 100)))  # fmt: skip
    drawn = Jpeg().draw(restrict(toy_model(0), Access.LABELS), whole, n=20, **DRAW).inputs
    levels = np.rint(whole.inputs / 100 * 255).astype(np.uint8)
    expected = [np.rint(compressed(image, 25) / 255 * 100).astype(np.int32).tobytes() for image in levels]
    assert {image.tobytes() for image in drawn} == set(expected)


def test_what_is_no_picture_is_not_compressed():
    rows = Data(inputs=np.zeros((9, 2), np.float32), labels=None, name="rows",
                domain=Domain(kind="tabular", shape=(2,)))  # fmt: skip
    with pytest.raises(ParameterError, match="jpeg compresses grey and colour images with known bounds; rows holds"):
        Jpeg().draw(restrict(toy_model(0), Access.LABELS), rows, n=2, **DRAW)
    with pytest.raises(ParameterError, match=r"quality must lie in \[1, 95\]; got 96"):
        Jpeg(quality=96)


def test_each_variant_needs_what_its_sampler_needs():
    for variant, sampler in {"w": Contrast(), "jc": Jpeg()}.items():
        scheme = build("sac", {"variant": variant})
        assert isinstance(scheme, QueryScheme)
        assert scheme.sampler == sampler
        assert scheme.needs_population == (variant == "w")
