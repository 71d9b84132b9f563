"""The Hugging Face adapter on small networks of real architectures, against transformers itself."""

import json
import logging
import shutil
import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    PreTrainedTokenizerFast,
    ResNetConfig,
    ResNetForImageClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
    ViTConfig,
    ViTForImageClassification,
)
from transformers.utils import logging as transformers_logging

import locard
from locard.errors import ArtefactError, MissingExtraError, ParameterError
from locard.models import Session
from locard.models.huggingface import HuggingFaceAdapter
from locard.records import Access, Data, Domain
from locard.testing import ADAPTER_LAWS, check_adapter

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "film", "book", "a", "the", "was", "not", "very"]
PREPROCESSOR = {
    "image_processor_type": "ViTImageProcessor",
    "do_resize": True,
    "size": {"height": 16, "width": 16},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.25, 0.5, 0.2],
}
RNG = np.random.default_rng(0)
BYTES = RNG.integers(0, 256, (6, 3, 16, 16), np.uint8)
IMAGES = BYTES.astype(np.float32) / np.float32(255)
TEXTS = np.array(
    ["good film", "a very bad book", "the film was not bad", "good", "unknown words here", "not good"], object
)


def load(source: Any, **options: Any) -> Any:
    """`locard.load`, whose adapters have more attributes than the type checker knows of."""
    return locard.load(source, **options)


def answers(model: Any, x: np.ndarray) -> np.ndarray:
    return Session(model, model.native).answer(x, model.native)


def save(model: Any, path: Path, seed: int = 0) -> Path:
    """A network as a folder; the answers of those that `centre` knows differ from input to input."""
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if tensor.dim() > 1:
                tensor.copy_(torch.randn(tensor.shape, generator=draws) * (3 if "embeddings" in name else 1))
    if isinstance(getattr(model, "classifier", None), torch.nn.Linear):
        centre(model, draws)
    model.save_pretrained(path)
    return path


def centre(model: Any, draws: torch.Generator) -> None:
    """Take the mean logits away, so that no class wins everywhere."""
    if model.main_input_name == "pixel_values":
        pixels = torch.rand((64, 3, 16, 16), generator=draws)
        mean, std = (torch.tensor(PREPROCESSOR[key])[:, None, None] for key in ("image_mean", "image_std"))
        inputs = (pixels - mean) / std
    else:
        inputs = torch.randint(4, len(WORDS), (64, 6), generator=draws)
        inputs[:, 0], inputs[:, -1] = 2, 3
    with torch.no_grad():
        model.classifier.bias -= model.eval()(inputs).logits.mean(0)


def save_tokenizer(path: Path, **options: Any) -> None:
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    options = {"model_input_names": ["input_ids", "attention_mask"], **options}
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **{**special, **options}).save_pretrained(path)


def vit(**options: Any) -> ViTForImageClassification:
    sizes: dict[str, Any] = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "num_labels": 4}
    return ViTForImageClassification(ViTConfig(image_size=16, patch_size=8, intermediate_size=16, **sizes, **options))


def distilbert(**options: Any) -> DistilBertForSequenceClassification:
    sizes: dict[str, Any] = {"dim": 8, "hidden_dim": 16, "n_layers": 2, "n_heads": 2, "num_labels": 3}
    config = DistilBertConfig(vocab_size=len(WORDS), max_position_embeddings=16, **{**sizes, **options})
    return DistilBertForSequenceClassification(config)


def bert_like(kind: Any, config: Any, **options: Any) -> Any:
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return kind(config(vocab_size=len(WORDS), num_labels=3, max_position_embeddings=16, **sizes, **options))


@pytest.fixture(scope="session")
def image_source(tmp_path_factory):
    path = save(vit(), tmp_path_factory.mktemp("hf") / "vit")
    (path / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    return path


@pytest.fixture(scope="session")
def text_source(tmp_path_factory):
    path = save(distilbert(), tmp_path_factory.mktemp("hf") / "distilbert")
    save_tokenizer(path, model_max_length=12)
    return path


@pytest.fixture
def images(image_source, tmp_path):
    """A copy that a test may spoil."""
    return Path(shutil.copytree(image_source, tmp_path / "vit"))


@pytest.fixture
def texts(text_source, tmp_path):
    return Path(shutil.copytree(text_source, tmp_path / "distilbert"))


def edit(path: Path, **changes: Any) -> Path:
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**content, **changes}))
    return path.parent


# Images


def test_images_are_prepared_as_transformers_does(image_source):
    model = load(image_source)
    assert model.domain == Domain(kind="image", shape=(3, 16, 16), bounds=(0.0, 1.0), quantum=1 / 255)
    assert (model.classes, model.native) == (4, Access.LOGITS)
    assert model.lineage.architecture == "ViTForImageClassification"
    processor = AutoImageProcessor.from_pretrained(image_source)
    prepared = processor(images=[image.transpose(1, 2, 0) for image in BYTES], return_tensors="pt")
    direct = AutoModelForImageClassification.from_pretrained(image_source).eval()
    with torch.inference_mode():
        expected = direct(**prepared).logits.numpy()
    np.testing.assert_allclose(answers(model, IMAGES), expected, rtol=1e-4, atol=1e-5)
    assert len(set(expected.argmax(1))) > 1


@pytest.mark.parametrize("law", ADAPTER_LAWS)
def test_conformance_of_image_classifiers(image_source, law):
    check_adapter(lambda: load(image_source), IMAGES, law)


def test_gradients_weights_and_module(image_source):
    model = load(image_source)
    logits, gradients = model.input_gradient(IMAGES, lambda z: z[:, 1])
    # The same derivative by finite differences, along one random direction.
    direction = RNG.normal(size=IMAGES.shape[1:]).astype(np.float32)
    module = model.module().double()
    with torch.inference_mode():
        up, down = (module(torch.from_numpy(IMAGES + step * direction).double())[:, 1] for step in (1e-3, -1e-3))
    np.testing.assert_allclose((gradients * direction).sum((1, 2, 3)), (up - down) / 2e-3, rtol=1e-2, atol=1e-3)
    np.testing.assert_allclose(logits, answers(load(image_source), IMAGES), rtol=1e-5)
    expected = AutoModelForImageClassification.from_pretrained(image_source).state_dict()
    weights = load(image_source).weights()
    assert weights.keys() == expected.keys()
    assert all(np.array_equal(weights[name], value) for name, value in expected.items())


def test_another_architecture_with_cropping(tmp_path):
    sizes: dict[str, Any] = {"embedding_size": 4, "hidden_sizes": [4, 8], "depths": [1, 1], "num_labels": 3}
    path = save(ResNetForImageClassification(ResNetConfig(layer_type="basic", **sizes)), tmp_path / "resnet")
    edit(path / "preprocessor_config.json", **{**PREPROCESSOR, "size": {"shortest_edge": 40}})
    assert load(path).domain.shape == (3, 40, 40)
    cropping = {"do_center_crop": True, "crop_size": {"height": 24, "width": 32}}
    model = load(edit(path / "preprocessor_config.json", **cropping))
    assert model.domain.shape == (3, 24, 32)
    x = RNG.random((2, 3, 24, 32), np.float32)
    mean, std = (np.array(PREPROCESSOR[key], np.float32)[:, None, None] for key in ("image_mean", "image_std"))
    direct = AutoModelForImageClassification.from_pretrained(path).eval()
    with torch.inference_mode():
        expected = direct(torch.from_numpy((x - mean) / std)).logits.numpy()
    np.testing.assert_allclose(answers(model, x), expected, rtol=1e-4, atol=1e-5)
    assert any("running_mean" in name for name in model.weights())


@pytest.mark.parametrize(
    ("changes", "prepare"),
    [
        ({"do_normalize": False}, lambda b: b / 255),
        ({"rescale_factor": 1 / 127.5}, lambda b: (b / 127.5 - 0.5) / 0.25),
        ({"do_rescale": False}, lambda b: (b - 0.5) / 0.25),
        ({"do_rescale": False, "do_normalize": False}, lambda b: b),
    ],
)
def test_rescaling_and_normalising_are_optional(images, changes, prepare):
    same = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    model = load(edit(images / "preprocessor_config.json", **same, **changes))
    direct = AutoModelForImageClassification.from_pretrained(images).eval()
    with torch.inference_mode():
        expected = direct(torch.from_numpy(prepare(BYTES.astype(np.float32)))).logits.numpy()
    np.testing.assert_allclose(answers(model, IMAGES), expected, rtol=1e-3, atol=1e-3)


def test_the_caller_can_say_it_all(images):
    (images / "preprocessor_config.json").unlink()
    with pytest.raises(
        ArtefactError, match=r"has no preprocessor_config\.json, so its normalisation is not known; give mean"
    ):
        load(images)
    domain = Domain(kind="image", shape=(3, 16, 16), bounds=(-1.0, 1.0))
    model = load(images, mean=(0.5,), std=(0.25,), domain=domain, outputs="values", batch_size=2)
    assert (model.domain, model.native, model.batch_size) == (domain, Access.VALUES, 2)
    assert load(images, mean=(0.5,), std=(0.25,)).domain.shape == (3, 16, 16)


def test_images_of_another_size_are_the_owners_to_resize(image_source):
    with pytest.raises(ParameterError, match=r"inputs must have shape \(n, 3, 16, 16\); got \(1, 3, 8, 8\)"):
        answers(load(image_source), np.zeros((1, 3, 8, 8), np.float32))
    with pytest.raises(ParameterError, match="fails on a batch of shape"):
        load(image_source, domain=Domain(kind="image", shape=(3, 8, 8)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_mean": None}, "must give image_mean as finite numbers; got None"),
        ({"image_std": [1, "a", 2]}, "must give image_std as finite numbers"),
        ({"image_std": [1, 0, 1]}, "must give image_std as positive numbers"),
        ({"rescale_factor": True}, "must give rescale_factor as finite numbers; got True"),
        ({"rescale_factor": -1}, "must give rescale_factor as positive numbers"),
        ({"rescale_offset": True}, "has rescale_offset, which is not read"),
        ({"size": {"longest_edge": 5}}, r"does not say what its images are .*\[3, None, None\]\); give domain="),
        ({"size": -5}, r"does not say what its images are .*\[3, -5, -5\]"),
        ({"size": [16, 16, 16]}, "does not say what its images are"),
        ({"size": {"height": 1 << 20, "width": 1 << 20}}, "does not say what its images are"),
    ],
)
def test_preprocessors_that_make_no_sense(images, changes, message):
    with pytest.raises(ArtefactError, match=message):
        load(edit(images / "preprocessor_config.json", **changes))


# Texts


def direct_text(path, texts):
    tokenizer = AutoTokenizer.from_pretrained(path)
    network = AutoModelForSequenceClassification.from_pretrained(path).eval()
    with torch.inference_mode():
        return np.concatenate([network(**tokenizer([text], return_tensors="pt")).logits.numpy() for text in texts])


def test_texts_are_answered_as_transformers_does(text_source):
    model = load(text_source)
    assert model.domain == Domain(kind="text", shape=(), dtype="str")
    assert (model.classes, model.native, model.max_length) == (3, Access.LOGITS, 12)
    expected = direct_text(text_source, TEXTS)
    np.testing.assert_allclose(answers(model, TEXTS), expected, rtol=1e-4, atol=1e-5)
    assert len(set(expected.argmax(1))) > 1
    assert model.weights().keys() == AutoModelForSequenceClassification.from_pretrained(text_source).state_dict().keys()
    assert model.grants == Access.LOGITS.implied | Access.WEIGHTS


@pytest.mark.parametrize("law", ADAPTER_LAWS)
def test_conformance_of_sequence_classifiers(text_source, law):
    check_adapter(lambda: load(text_source), TEXTS, law)


def test_long_texts_are_cut_where_the_model_ends(text_source):
    model = load(text_source, max_length=5)
    long, cut = "good film " * 200, "good film good"
    both = answers(model, np.array([long, cut], object))
    np.testing.assert_allclose(both[0], both[1], rtol=1e-5)
    np.testing.assert_allclose(both[1], direct_text(text_source, [cut])[0], rtol=1e-4, atol=1e-5)
    assert model.digest != load(text_source).digest


@pytest.mark.parametrize(
    ("kind", "config", "options", "limit"),
    [
        (BertForSequenceClassification, BertConfig, {}, 16),
        (RobertaForSequenceClassification, RobertaConfig, {"pad_token_id": 0}, 15),
    ],
)
def test_the_limit_of_models_whose_tokenizer_says_none(tmp_path, kind, config, options, limit):
    path = save(bert_like(kind, config, **options), tmp_path / "bert")
    save_tokenizer(path)
    model = load(path)
    assert model.max_length == limit
    assert answers(model, np.array(["film " * 99], object)).shape == (1, 3)
    np.testing.assert_allclose(answers(model, TEXTS), direct_text(path, TEXTS), rtol=1e-4, atol=1e-5)


def test_what_the_tokenizer_says_and_the_model_does_not_take(texts):
    expected = answers(load(texts), TEXTS)
    save_tokenizer(texts, model_max_length=12, model_input_names=["input_ids", "token_type_ids", "attention_mask"])
    assert "token_type_ids" in AutoTokenizer.from_pretrained(texts)(["film"])
    np.testing.assert_array_equal(answers(load(texts), TEXTS), expected)


def test_without_padding_texts_go_in_one_at_a_time(tmp_path):
    sizes: dict[str, Any] = {"n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 16, "num_labels": 3}
    path = save(GPT2ForSequenceClassification(GPT2Config(vocab_size=len(WORDS), **sizes)), tmp_path / "gpt2")
    save_tokenizer(path, pad_token=None)
    model = load(path)
    assert model.max_length == 16
    np.testing.assert_allclose(answers(model, TEXTS), direct_text(path, TEXTS), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("config", "native"),
    [
        ({"num_labels": 1}, Access.VALUES),
        ({"problem_type": "multi_label_classification"}, Access.VALUES),
        ({"problem_type": "single_label_classification"}, Access.LOGITS),
    ],
)
def test_regressions_and_multiple_labels_are_values(tmp_path, config, native):
    network = DistilBertConfig(vocab_size=len(WORDS), dim=8, hidden_dim=16, n_layers=1, n_heads=2, **config)
    path = save(DistilBertForSequenceClassification(network), tmp_path / "model")
    save_tokenizer(path)
    assert load(path).native is native


def test_extract_and_verify_on_texts(tmp_path):
    paths = [save(distilbert(), tmp_path / str(seed), seed) for seed in range(5)]
    for path in paths:
        save_tokenizer(path, model_max_length=12)
    words = np.array(WORDS[4:])
    inputs = np.array(sorted({" ".join(RNG.choice(words, RNG.integers(2, 8))) for _ in range(150)}), object)
    labels = RNG.integers(0, 3, len(inputs))
    data = Data(inputs=inputs, labels=labels, domain=Domain(kind="text", shape=(), dtype="str"), name="reviews")
    fp = locard.calibrate(locard.extract(paths[0], data=data, queries=40), references=paths[2:])
    fp.save(tmp_path / "fp.locard")
    same, other = (locard.verify(tmp_path / "fp.locard", path) for path in paths[:2])
    assert same.evidence.score == 1.0
    assert same.evidence.p_value == same.evidence.p_value_floor == 0.25
    assert other.evidence.score < 0.9


def test_extract_and_verify_on_images(image_source, tmp_path):
    labels = RNG.integers(0, 4, 60)
    inputs = RNG.integers(0, 256, (60, 3, 16, 16)).astype(np.float32) / np.float32(255)
    np.savez(tmp_path / "data.npz", x=(inputs * 255).round().astype(np.uint8), y=labels)
    other = save(vit(), tmp_path / "other", seed=1)
    edit(other / "preprocessor_config.json", **PREPROCESSOR)
    fp = locard.extract(image_source, data=tmp_path / "data.npz", queries=20)
    assert locard.verify(fp, image_source).evidence.score == 1.0
    assert locard.verify(fp, other).evidence.score < 1.0


# Nothing is fetched, run or said


def test_nothing_goes_to_the_network(image_source, text_source, monkeypatch):
    def refuse(*_):
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert load(image_source).classes == 4
    assert load(text_source).classes == 3


def test_loading_is_quiet_and_leaves_transformers_as_it_was(image_source, text_source, capfd):
    level = logging.getLogger("transformers").level
    assert transformers_logging.is_progress_bar_enabled()
    load(image_source)
    load(text_source)
    assert capfd.readouterr() == ("", "")
    assert transformers_logging.is_progress_bar_enabled()
    assert logging.getLogger("transformers").level == level


MINE = 'from pathlib import Path\nPath("sprung").touch()\n'


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "preprocessor_config.json"])
@pytest.mark.parametrize("trust", [False, True])
def test_code_in_a_folder_is_never_run(texts, name, trust, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (texts / "mine.py").write_text(MINE)
    edit(texts / name, auto_map={"AutoConfig": "mine.Config", "AutoTokenizer": ["mine.Tokenizer", None]})
    with pytest.raises(ArtefactError, match=f"{name} has 'auto_map': it wants code .* which Locard never runs"):
        load(texts, trust=trust)
    assert not Path("sprung").exists()


def test_kernels_named_by_a_config_are_not_looked_for(texts):
    edit(texts / "config.json", attn_implementation="some/kernel", _attn_implementation="some/kernel")
    assert load(texts)._model.config._attn_implementation == "eager"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p: edit(p / "config.json", quantization_config={"quant_method": "gptq"}), "has 'quantization_config'"),
        (lambda p: edit(p / "adapter_config.json", base_model_name_or_path="a/b"), "it is an adapter .* elsewhere"),
        (
            lambda p: edit(p / "config.json", architectures=["BertForMaskedLM"]),
            "architecture is BertForMaskedLM; expected",
        ),
        (
            lambda p: edit(p / "config.json", architectures=None),
            "its architecture is not named; expected one for image",
        ),
        (lambda p: edit(p / "config.json", model_type="nonesuch"), "transformers does not read it: .*nonesuch"),
        (
            lambda p: edit(p / "config.json", n_layers=10**9),
            r"n_layers = 1,000,000,000, and the weights hold \d+ tensors",
        ),
        (lambda p: edit(p / "config.json", dim=1 << 12), r"describes [\d,]+ weights; their files have [\d,]+ bytes"),
        (lambda p: edit(p / "config.json", dim=10), "transformers does not read it: "),
        (lambda p: edit(p / "config.json", n_layers="many"), "transformers does not read it: "),
        (lambda p: (p / "config.json").write_text("{"), r"config\.json is no JSON"),
        (lambda p: (p / "config.json").write_text("[" * 99_999), r"config\.json is no JSON"),
        (lambda p: (p / "config.json").write_text("[]"), r"config\.json must be a JSON object; got list"),
        (lambda p: (p / "tokenizer.json").write_text("{"), "transformers does not read it: "),
        (lambda p: (p / "model.safetensors").write_bytes(b"\xff" * 99), "its weights are damaged: .*download or save"),
    ],
)
def test_folders_that_are_refused(texts, spoil, message, capfd):
    spoil(texts)
    with pytest.raises(ArtefactError, match=message) as caught:
        load(texts)
    assert str(texts) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_weights_that_lack_a_part(texts):
    """transformers would draw the rest at random and go on."""
    stored = load_file(texts / "model.safetensors")
    kept = {name: value for name, value in stored.items() if not name.startswith("classifier")}
    save_file(kept, texts / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ArtefactError, match=r"its weights lack 'classifier\.bias' \(2 in all\), which would be random"):
        load(texts)


def test_truncated_weights(texts):
    content = (texts / "model.safetensors").read_bytes()
    (texts / "model.safetensors").write_bytes(content[:-100])
    with pytest.raises(ArtefactError, match="its weights are damaged"):
        load(texts)


def test_json_beyond_the_limit(texts, monkeypatch):
    monkeypatch.setattr("locard.models._huggingface_folder.MAX_JSON", 10)
    with pytest.raises(ArtefactError, match=r"config\.json has \d+ bytes; at most 10 are read"):
        load(texts)


def pickled(folder: Path) -> Path:
    stored = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save({name: torch.from_numpy(value) for name, value in stored.items()}, folder / "pytorch_model.bin")
    return folder


def test_pickled_weights_need_trust(texts):
    expected = answers(load(texts), TEXTS)
    folder = pickled(texts)
    with pytest.raises(ArtefactError, match=r"a pickle \(pytorch_model\.bin\), whose reading can run code; .*--trust"):
        load(folder)
    np.testing.assert_array_equal(answers(load(folder, trust=True), TEXTS), expected)


def test_a_trap_in_a_pickle_is_not_sprung_even_with_trust(texts, tmp_path):
    class Trap:
        def __reduce__(self):
            return (tmp_path.joinpath("sprung").touch, ())

    torch.save({"trap": Trap(), "fill": torch.zeros(2000)}, pickled(texts) / "pytorch_model.bin")
    with pytest.raises(ArtefactError, match="transformers does not read it: "):
        load(texts, trust=True)
    assert not (tmp_path / "sprung").exists()


def sharded(folder: Path, *names: str) -> Path:
    """The weights in several files, with an index."""
    stored = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    home = {key: names[i % len(names)] for i, key in enumerate(stored)}
    for name in names:
        part = {key: value for key, value in stored.items() if home[key] == name}
        save_file(part, folder / name, metadata={"format": "pt"})
    return edit(folder / "model.safetensors.index.json", metadata={"total_size": 1}, weight_map=home)


def test_weights_in_several_files(texts):
    whole = load(texts)
    parts = load(sharded(texts, "model-1.safetensors", "model-2.safetensors"))
    np.testing.assert_array_equal(answers(parts, TEXTS), answers(whole, TEXTS))
    assert parts.digest == whole.digest


def test_an_index_does_not_lead_out_of_the_folder(texts):
    with pytest.raises(ArtefactError, match=r"names the file '\.\./outside\.safetensors', which is not in the folder"):
        load(sharded(texts, "model-1.safetensors", "../outside.safetensors"))
    with pytest.raises(ArtefactError, match=r"model\.safetensors\.index\.json names no file with weights"):
        load(edit(texts / "model.safetensors.index.json", weight_map=[]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"outputs": "labels"}, "outputs must be logits or values; got 'labels'"),
        ({"max_length": 0}, "max_length must be a whole number >= 1; got 0"),
        ({"mean": (0.5,)}, "unknown option of a Hugging Face text classifier 'mean'"),
        ({"batch_size": 0}, "batch_size must be a whole number >= 1; got 0"),
        (
            {"domain": Domain(kind="tabular", shape=(3,))},
            r"a sequence classifier takes text str; got domain tabular \(3,\)",
        ),
    ],
)
def test_options(text_source, options, message):
    with pytest.raises(ParameterError, match=message):
        load(text_source, **options)


def test_what_is_such_a_folder(text_source, tmp_path):
    recognises = HuggingFaceAdapter.recognises
    assert recognises(text_source)
    assert recognises(str(text_source))
    assert not recognises(tmp_path)
    assert not recognises("https://example.org/model")
    assert not recognises(3)
    (tmp_path / "config.json").write_text("{}")
    assert not recognises(tmp_path)


def test_the_extra_is_named(text_source, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(
        MissingExtraError, match=r"a Hugging Face folder needs the package 'transformers'.*locard\[hf\]"
    ):
        load(text_source)
