"""Layouts told by names: whatever a layout says may change places changes nothing, in the real networks."""

from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tests.weights.copies import moved

from locard.errors import ParameterError
from locard.models.architectures import build
from locard.weights.files import Arrays
from locard.weights.layouts import Part, constant, layout_of

SMALL: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 64}
WIDE: dict[str, Any] = {**SMALL, "intermediate_size": 48, "pad_token_id": 0}
GROUPED: dict[str, Any] = {**WIDE, "num_key_value_heads": 2}
FAMILIES = {
    "llama": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**GROUPED)),
    "mistral": lambda: transformers.MistralForCausalLM(transformers.MistralConfig(**GROUPED)),
    "qwen2": lambda: transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**GROUPED)),
    "qwen3": lambda: transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**GROUPED, head_dim=16)),
    "gemma": lambda: transformers.GemmaForCausalLM(transformers.GemmaConfig(**GROUPED, head_dim=16)),
    "gemma2": lambda: transformers.Gemma2ForCausalLM(transformers.Gemma2Config(**GROUPED, head_dim=16)),
    "phi": lambda: transformers.PhiForCausalLM(transformers.PhiConfig(**WIDE)),
    "phi3": lambda: transformers.Phi3ForCausalLM(transformers.Phi3Config(**GROUPED)),
    "gpt2": lambda: transformers.GPT2LMHeadModel(
        transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=64, n_positions=32)
    ),
    "neox": lambda: transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(**WIDE)),
    "opt": lambda: transformers.OPTForCausalLM(
        transformers.OPTConfig(**SMALL, ffn_dim=48, word_embed_proj_dim=32, max_position_embeddings=32)
    ),
    "bert": lambda: transformers.BertForSequenceClassification(transformers.BertConfig(**WIDE)),
    "roberta": lambda: transformers.RobertaForSequenceClassification(transformers.RobertaConfig(**WIDE)),
    "distilbert": lambda: transformers.DistilBertForSequenceClassification(
        transformers.DistilBertConfig(dim=32, n_layers=2, n_heads=4, hidden_dim=48, vocab_size=64)
    ),
    "vit": lambda: transformers.ViTForImageClassification(
        transformers.ViTConfig(**{k: v for k, v in WIDE.items() if k != "vocab_size"}, image_size=16, patch_size=4)
    ),
}


def facts(config):
    return {key: value for key, value in config.to_dict().items() if isinstance(value, int | float | str)}


def arrays(state):
    return Arrays({name: one.numpy() for name, one in state.items()})


def stirred(module):
    """Biases and gains start equal, and a wrong layout would not show in them."""
    with torch.no_grad():
        for one in module.parameters():
            if one.ndim == 1:
                one.add_(0.3 * torch.randn(one.shape))
        for name, one in module.named_buffers():
            if name.endswith("running_mean"):
                one.add_(0.3 * torch.randn(one.shape))
            elif name.endswith("running_var"):
                one.mul_(0.5 + torch.rand(one.shape))
    return module.eval()


def answers(module, x):
    with torch.no_grad():
        out = module(x)
    return out if isinstance(out, torch.Tensor) else out.logits


@pytest.mark.parametrize("family", FAMILIES)
def test_units_and_heads_of_hugging_face_families_may_change_places(family):
    with torch.random.fork_rng():
        torch.manual_seed(0)  # noqa: TID251 - within fork_rng
        module = stirred(FAMILIES[family]())
        x = torch.randn(2, 3, 16, 16) if family == "vit" else torch.randint(3, 60, (2, 9))
    state = {name: one.clone() for name, one in module.state_dict().items()}
    layout = layout_of(arrays(state), facts(module.config))
    assert [block.name for block in layout.blocks] == ["stream", "0.mlp", "0.heads", "1.mlp", "1.heads"]
    assert layout.anchor is not None
    before = answers(module, x)
    after, _ = moved(state, layout, seed=1)
    assert sum(not torch.equal(after[name], one) for name, one in state.items()) >= 8
    module.load_state_dict(after)
    torch.testing.assert_close(answers(module, x), before, rtol=1e-3, atol=1e-5)


OURS = {
    "mlp": ({"shape": [12], "classes": 5, "hidden": [20, 24]}, (12,), ["layers.0", "layers.1"]),
    "cnn": ({"shape": [1, 8, 8], "classes": 5, "width": 6}, (1, 8, 8), ["conv1", "conv2", "dense1"]),
    "vgg": ({"shape": [1, 8, 8], "classes": 5, "width": 4}, (1, 8, 8),
            ["features.0", "features.3", "features.7", "features.10", "features.14", "features.17"]),
    "resnet": ({"shape": [1, 8, 8], "classes": 5, "width": 4}, (1, 8, 8),
               ["stage 1", "block1.inner1", "block2.inner1", "stage 2", "block3.inner1", "stage 3"]),
    "transformer": ({"shape": [1, 8, 8], "classes": 5, "width": 16, "heads": 4}, (1, 8, 8),
                    ["stream", "0.mlp", "0.heads", "1.mlp", "1.heads"]),
}  # fmt: skip


@pytest.mark.parametrize("name", OURS)
def test_units_of_our_architectures_may_change_places(name):
    arguments, shape, blocks = OURS[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)  # noqa: TID251 - within fork_rng
        module = stirred(build(name, **arguments))
        x = torch.randn(3, *shape)
    state = {key: one.clone() for key, one in module.state_dict().items()}
    layout = layout_of(arrays(state), arguments)
    assert [block.name for block in layout.blocks] == blocks
    before = answers(module, x)
    after, orders = moved(state, layout, seed=1, scale=name in ("mlp", "cnn"))
    assert any((order != np.arange(len(order))).any() for order in orders.values())
    module.load_state_dict(after)
    torch.testing.assert_close(answers(module, x), before, rtol=1e-3, atol=1e-5)


def test_a_bag_of_words():
    layout = layout_of(arrays(build("bag", shape=[], classes=3, buckets=50, width=8, hidden=[12]).state_dict()))
    assert [(block.name, block.units) for block in layout.blocks] == [("vectors", 8), ("layers.0", 12)]
    table = layout.blocks[0].ins[0]
    assert isinstance(table, Part)
    assert table.across == "tokens"


def test_without_heads_the_attention_is_left_out_and_that_is_said():
    state = FAMILIES["llama"]().state_dict()
    layout = layout_of(arrays(state))
    assert {block.kind for block in layout.blocks} == {"units"}
    assert "nothing says how many heads" in layout.notes[0]


def test_fixed_positions_number_the_stream_so_its_order_is_no_evidence():
    config = transformers.DistilBertConfig(
        dim=32, n_layers=1, n_heads=4, hidden_dim=48, vocab_size=64, sinusoidal_pos_embds=True
    )
    state = transformers.DistilBertModel(config).state_dict()
    layout = layout_of(arrays(state), facts(config))
    assert [block.name for block in layout.blocks] == ["0.mlp", "0.heads"]
    assert "which number the stream's coordinates" in layout.notes[0]
    assert layout.constants["embeddings.position_embeddings.weight"] == "it holds sines and cosines of positions"


def test_what_has_no_layers_is_refused():
    with pytest.raises(ParameterError, match="has no two matrices that follow one another"):
        layout_of(Arrays({"a": np.ones((3, 4)), "b": np.ones(7)}))


def fourier(n, kind="hann"):
    t = np.arange(n)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * t / n) if kind == "hann" else 0.54 - 0.46 * np.cos(2 * np.pi * t / n)
    angle = 2 * np.pi * np.outer(np.arange(n // 2 + 1), t) / n
    return (np.concatenate([np.cos(angle), -np.sin(angle)]) * window)[:, None].astype(np.float32)


def positions(rows, width):
    angle = np.arange(rows)[:, None] * 10000.0 ** (-2 * np.arange(width // 2) / width)
    return np.stack([np.sin(angle), np.cos(angle)], axis=2).reshape(rows, width).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "array", "reason"),
    [
        ("x.inv_freq", np.random.default_rng(0).normal(size=8), "its name"),
        ("x.stft", fourier(64), "Fourier basis"),
        ("x.stft", fourier(256, "hamming").astype(np.float16).astype(np.float32), "Fourier basis"),
        ("x.pe", positions(50, 16), "sines and cosines"),
        ("x.pe", positions(50, 16)[:, list(range(0, 16, 2)) + list(range(1, 16, 2))], "sines and cosines"),
        ("x.mask", np.tril(np.ones((9, 9))), "2 values only"),
        ("x.start", np.full((4, 4), 0.02), "1 value only"),
    ],
)
def test_constants_are_known_by_name_or_closed_form(name, array, reason):
    assert reason in constant(name, np.asarray(array, np.float32))


def test_what_was_trained_is_no_constant():
    source = np.random.default_rng(0)
    near = fourier(64) + 0.05 * source.normal(size=fourier(64).shape)
    for array in (source.normal(size=(66, 64)), near, positions(50, 16) + 0.05 * source.normal(size=(50, 16))):
        assert constant("x.weight", array.astype(np.float32)) is None


def test_constants_make_no_blocks():
    source = np.random.default_rng(0)
    state = {
        "a.basis": fourier(64),
        "b.conv": source.normal(size=(16, 33, 3)),
        "c.conv": source.normal(size=(8, 16, 3)),
    }
    layout = layout_of(Arrays({name: one.astype(np.float32) for name, one in state.items()}))
    assert layout.constants == {"a.basis": "it is a Fourier basis under a window"}
    assert [block.name for block in layout.blocks] == ["b.conv"]
