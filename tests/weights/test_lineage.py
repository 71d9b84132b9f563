"""The lineage test: exact where it says so, blind to symmetries, and no accuser of strangers."""

# A block found without a z or a match fails its test by itself.
# pyright: reportOptionalOperand=false, reportArgumentType=false, reportCallIssue=false

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.weights.copies import moved, rotated
from tests.weights.test_layouts import arrays, facts

from locard.errors import ArtefactError
from locard.weights.files import Arrays
from locard.weights.layouts import layout_of
from locard.weights.lineage import Sampling, pair
from locard.weights.lineage.agreement import chance, log10_at_least, nearest
from locard.weights.lineage.order import OrderTest, draws, log10_tail, moments, p_by_draws, z_value

QUICK = Sampling(rounds=999)
CONFIG: dict[str, Any] = {
    "vocab_size": 1500, "hidden_size": 48, "intermediate_size": 128, "num_hidden_layers": 4,
    "num_attention_heads": 8, "num_key_value_heads": 4,
}  # fmt: skip
FACTS = facts(transformers.LlamaConfig(**CONFIG))


def llama(seed):
    """A Llama of random weights with gains of their own."""
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        module = transformers.LlamaForCausalLM(transformers.LlamaConfig(**CONFIG))
    return {
        name: 1 + 0.1 * torch.randn(one.shape, generator=generator) if one.ndim == 1
        else 0.02 * torch.randn(one.shape, generator=generator)
        for name, one in module.state_dict().items()
    }  # fmt: skip


def compare(a, b, sampling=QUICK, **options):
    one, other = arrays(a), arrays(b)
    return pair(one, other, layouts=(layout_of(one, FACTS), layout_of(other, FACTS)), sampling=sampling, **options)


@pytest.fixture(scope="module")
def victim():
    return llama(0)


@pytest.fixture(scope="module")
def disguised(victim):
    """Units and heads in other places, norms folded, the stream turned: the same function."""
    return rotated(moved(victim, layout_of(arrays(victim), FACTS), seed=3)[0], seed=4)


@given(st.integers(2, 6), st.integers(0, 1000))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_moments_are_those_of_all_orders(n, seed):
    table = np.random.default_rng(seed).normal(size=(n, n))
    sums = [table[np.arange(n), list(order)].sum() for order in itertools.permutations(range(n))]
    mean, variance = moments(table)
    np.testing.assert_allclose([mean, variance], [np.mean(sums), np.var(sums)], rtol=1e-9, atol=1e-12)


def test_draws_are_from_all_orders_alike():
    table = np.array([[0.0, 1, 2], [4, 8, 16], [33, 64, 130]])
    drawn = draws(table, rounds=6000, seed=0, name="x")
    sums, counts = np.unique(drawn, return_counts=True)
    wanted = {table[[0, 1, 2], list(order)].sum() for order in itertools.permutations(range(3))}
    assert set(sums) == wanted
    assert abs(counts / 6000 - 1 / 6).max() < 0.02


def test_p_counts_ties_against_the_accused():
    assert p_by_draws(2.0, np.array([1.0, 2.0, 3.0])) == 3 / 4
    assert p_by_draws(9.0, np.array([1.0, 2.0, 3.0])) == 1 / 4


def test_a_table_that_says_nothing_gives_no_z():
    assert z_value(np.ones((8, 8))) == 0
    assert z_value(np.zeros((8, 8))) == 0
    test = OrderTest(rounds=99)
    assert test.add("x", np.ones((5, 5))) == 0
    assert test.result().p_value == 1


def test_tails_far_below_the_smallest_float():
    assert log10_tail(2.0) == pytest.approx(math.log10(0.0227501319), abs=1e-6)
    assert log10_tail(100.0) == pytest.approx(-2173.871, abs=0.01)
    assert log10_at_least(0, 1.0) == 0
    assert log10_at_least(3, 1.0) == pytest.approx(math.log10(1 - 2.5 * math.exp(-1)), abs=1e-6)
    exact = math.log10(math.fsum(math.exp(-2 + k * math.log(2) - math.lgamma(k + 1) + 1000) for k in range(400, 500)))
    assert log10_at_least(400, 2.0) == pytest.approx(exact - 1000 / math.log(10), abs=0.01)


def test_chance_is_never_below_one_and_covers_the_mean():
    assert chance([0] * 50) == 1
    assert chance([3]) > 3
    covered = [chance(list(np.random.default_rng(seed).poisson(4, 6))) >= 4 for seed in range(200)]
    assert sum(covered) >= 194


def test_neighbours_choose_each_other():
    table = np.array([[0.9, 0.2, 0.1], [0.8, 0.1, 0.3], [0.0, 0.0, 0.0]])
    assert nearest(table).tolist() == [0, -1, -1]


def test_a_model_with_itself(victim):
    found = compare(victim, victim, Sampling())
    assert found.order_p == found.order_floor == 2e-4
    assert found.log10_order < -1000
    assert found.matched_fraction == 1
    assert found.missing == ()
    assert {block.name for block in found.blocks} == {
        "stream",
        *(f"{i}.{k}" for i in range(4) for k in ("mlp", "heads")),
    }


def test_a_stranger(victim):
    for seed in range(1, 6):
        found = compare(victim, llama(seed))
        assert found.order_p > 0.01
        assert found.matched_fraction < 0.06
        assert all(block.log10_modelled > -3 for block in found.blocks if block.log10_modelled is not None)


def test_moved_units_and_heads_of_a_turned_stream_are_found(victim, disguised):
    found = compare(victim, disguised)
    assert found.alignment == "rotation"
    assert found.residual < 1e-6
    blocks = {block.name: block for block in found.blocks}
    for i in range(4):
        assert blocks[f"{i}.mlp"].matched == blocks[f"{i}.heads"].matched == 1
        assert abs(blocks[f"{i}.mlp"].z) < 4
        assert blocks[f"{i}.mlp"].log10_modelled < -100


def test_a_signed_permutation_of_the_stream_is_told_from_a_rotation(victim):
    source = np.random.default_rng(0)
    order = torch.from_numpy(source.permutation(48))
    sign = torch.from_numpy(source.choice([-1.0, 1.0], 48)).float()
    turned = {}
    for name, one in victim.items():
        if one.ndim == 1:
            turned[name] = one[order]
        elif name.endswith(("o_proj.weight", "down_proj.weight")):
            turned[name] = one[order] * sign[:, None]
        else:
            turned[name] = one[:, order] * sign
    found = compare(victim, turned)
    assert (found.alignment, found.order_p) == ("permutation", found.order_floor)
    assert found.residual < 1e-6


CHANGES = {
    "noise": lambda x: x + 0.5 * x.std() * torch.randn(x.shape, generator=torch.Generator().manual_seed(9)),
    "prune": lambda x: torch.where(x.abs() >= x.abs().median(), x, torch.zeros(())),
    "int8": lambda x: torch.round(x / x.abs().max() * 127) * x.abs().max() / 127,
    "int4": lambda x: torch.round(x / x.abs().amax(1, keepdim=True) * 7) * x.abs().amax(1, keepdim=True) / 7,
    "float16": lambda x: x.half().float(),
    "bfloat16": lambda x: x.bfloat16().float(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changes_of_the_weights_are_survived_before_and_after_a_disguise(victim, disguised, change):
    for copy in (victim, disguised):
        changed = {name: CHANGES[change](one) if one.ndim == 2 else one for name, one in copy.items()}
        found = compare(victim, changed)
        assert all(block.matched > 0.95 for block in found.blocks if "mlp" in block.name)
        if copy is victim:
            assert found.order_p == found.order_floor


def test_a_copy_that_shares_one_block_is_found_there(victim):
    other = llama(7)
    other |= {name: one for name, one in victim.items() if ".layers.2.mlp." in name}
    found = compare(victim, other, Sampling())
    assert found.order_p <= 2e-3
    z = {block.name: block.z for block in found.blocks}
    assert max(z, key=lambda name: z[name]) == "2.mlp"
    assert all(abs(value) < 4.5 for name, value in z.items() if name != "2.mlp")
    # The norm in front of the block is the other model's, and the stream is its own.
    assert next(block for block in found.blocks if block.name == "2.mlp").matched > 0.95


def test_a_wider_or_pruned_block_is_matched_though_places_are_gone(victim):
    kept = np.sort(np.random.default_rng(0).permutation(128)[:96])
    pruned = dict(victim)
    for name, one in victim.items():
        if "gate_proj" in name or "up_proj" in name:
            pruned[name] = one[kept]
        elif "down_proj" in name:
            pruned[name] = one[:, kept]
    found = compare(victim, pruned)
    block = next(block for block in found.blocks if block.name == "1.mlp")
    assert block.z is None
    assert block.matched == pytest.approx(0.75, abs=0.02)


def test_other_shapes_have_nothing_in_common(victim):
    small = Arrays(
        {"layers.0.weight": np.eye(8, 5) + 0.1 * np.arange(5), "layers.1.weight": np.eye(3, 8) + np.arange(8)}
    )
    one = arrays(victim)
    found = pair(one, small, layouts=(layout_of(one, FACTS), layout_of(small)), sampling=QUICK)
    assert found.blocks == ()
    assert (found.order_p, found.matched_fraction) == (1, None)
    assert len(found.missing) == 9


def test_numbers_that_are_not_finite_are_refused(victim):
    broken = dict(victim)
    broken["model.layers.1.mlp.up_proj.weight"] = torch.full((128, 48), math.nan)
    with pytest.raises(ArtefactError, match=r"'model\.layers\.1\.mlp\.up_proj\.weight' holds numbers that are not fin"):
        compare(victim, broken)


def test_the_same_seed_gives_the_same_findings(victim, disguised):
    assert compare(victim, disguised, seed=5) == compare(victim, disguised, seed=5)


def network(seed, scale=1.0):
    """A random ReLU network, 20-48-10, whose inputs' weights are heavy-tailed in a way that all share."""
    source = np.random.default_rng(seed)
    spread = np.random.default_rng(12345).lognormal(0, scale, 20)
    w1, w2 = source.normal(size=(48, 20)) * spread, source.normal(size=(10, 48))
    # What a unit reads and what it writes go together, as training makes them.
    w2 += 0.5 * w1[:, :10].T / np.abs(w1).mean()
    return Arrays({"layers.0.weight": w1.astype(np.float32), "layers.1.weight": w2.astype(np.float32)})


def test_p_is_uniform_over_a_thousand_pairs_of_strangers():
    from scipy.stats import kstest

    found = [pair(network(2 * i), network(2 * i + 1), sampling=Sampling(rounds=399), seed=i) for i in range(1000)]
    p = np.array([one.order_p for one in found])
    for a in (0.01, 0.05, 0.1):
        assert (p <= a).mean() <= a + 3 * math.sqrt(a * (1 - a) / len(p))
    assert kstest(p, "uniform").pvalue > 0.01
    z = np.array([one.blocks[0].z for one in found])
    assert abs(z.mean()) < 0.1
    assert abs(z.std() - 1) < 0.1
    assert np.mean([one.matched_fraction for one in found]) < 0.1


def test_p_is_valid_over_pairs_of_many_blocks():
    def deep(seed):
        source = np.random.default_rng(seed)
        sizes = [12, 20, 24, 20, 6]
        return Arrays({
            f"layers.{i}.weight": source.normal(size=(sizes[i + 1], sizes[i])).astype(np.float32) for i in range(4)
        })  # fmt: skip

    p = np.array(
        [pair(deep(2 * i), deep(2 * i + 1), sampling=Sampling(rounds=199), seed=i).order_p for i in range(300)]
    )
    for a in (0.01, 0.05, 0.1):
        assert (p <= a).mean() <= a + 3 * math.sqrt(a * (1 - a) / len(p))


def test_a_permuted_copy_scaled_by_powers_of_two():
    """Oracle 1 of the card: all units matched, the order no evidence."""
    victim = network(1)
    source = np.random.default_rng(5)
    order, scale = source.permutation(48), 2.0 ** source.integers(-3, 4, 48)
    w1, w2 = victim.matrix("layers.0.weight"), victim.matrix("layers.1.weight")
    copy = Arrays({"layers.0.weight": scale[:, None] * w1[order], "layers.1.weight": w2[:, order] / scale})
    found = pair(victim, copy, sampling=QUICK)
    assert found.matched_fraction == 1
    assert abs(found.blocks[0].z) < 3


@pytest.mark.slow
def test_p_is_valid_over_transformers_whose_blocks_are_sampled():
    def stranger(seed):
        source, width, units = np.random.default_rng(seed), 64, 400
        state = {"model.embed_tokens.weight": source.normal(size=(300, width))}
        for i in range(4):
            layer = f"model.layers.{i}."
            state |= {f"{layer}self_attn.{one}_proj.weight": source.normal(size=(width, width)) for one in "qkvo"}
            state |= {f"{layer}mlp.{one}_proj.weight": source.normal(size=(units, width)) for one in ("gate", "up")}
            state[f"{layer}mlp.down_proj.weight"] = source.normal(size=(width, units))
        return Arrays({name: one.astype(np.float32) for name, one in state.items()})

    heads, values = {"num_attention_heads": 16}, []
    for i in range(400):
        a, b = stranger(2 * i), stranger(2 * i + 1)
        layouts = (layout_of(a, heads), layout_of(b, heads))
        values.append(pair(a, b, layouts=layouts, sampling=QUICK, seed=i).order_p)
    p = np.array(values)
    for a in (0.01, 0.05, 0.1):
        assert (p <= a).mean() <= a + 3 * math.sqrt(a * (1 - a) / len(p))
