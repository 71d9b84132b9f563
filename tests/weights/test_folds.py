"""Symmetries that no graph tells: a random element changes weights, not answers, and forms agree."""

from __future__ import annotations

import numpy as np
import pytest

from locard.errors import ParameterError
from locard.weights import attention, folds

RNG = np.random.default_rng(11)
TIGHT = 1e-12


def relative(one, other):
    return float(np.abs(one - other).max() / np.abs(one).max())


def softmax(scores):
    shifted = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def invertible(size):
    return RNG.normal(size=(size, size)) + 2 * np.eye(size)


def turn(x, pairs, angles=(1.0, 0.3, 0.09)):
    """Rotary positions on (positions, 6)."""
    z = x[:, :3] + 1j * x[:, 3:] if pairs == "half" else x[:, ::2] + 1j * x[:, 1::2]
    z = z * np.exp(1j * np.arange(len(x))[:, None] * np.array(angles))
    return np.concatenate([z.real, z.imag], 1) if pairs == "half" else np.stack([z.real, z.imag], 2).reshape(len(x), 6)


def complex_element(query, key, pairs, c):
    q, k = attention._complex(query, pairs) * c[:, None], attention._complex(key, pairs) / np.conj(c)[:, None]
    return attention._real(q, pairs), attention._real(k, pairs)


@pytest.mark.parametrize("pairs", ["half", "interleaved"])
def test_rotary_pairs_know_complex_numbers_and_nothing_else(pairs):
    x, q, k = RNG.normal(size=(7, 5)), RNG.normal(size=(6, 5)), RNG.normal(size=(6, 5))

    def scores(query, key):
        return turn(x @ query.T, pairs) @ turn(x @ key.T, pairs).T

    for _ in range(5):
        c = RNG.normal(size=3) + 1j * RNG.normal(size=3)
        q2, k2 = complex_element(q, k, pairs, c)
        assert relative(scores(q, k), scores(q2, k2)) < 1e-10
        assert (
            relative(attention.rotary_products(q, k, pairs=pairs), attention.rotary_products(q2, k2, pairs=pairs))
            < TIGHT
        )
        one, other = attention.canonical_rotary(q, k, pairs=pairs), attention.canonical_rotary(q2, k2, pairs=pairs)
        assert max(np.abs(a - b).max() for a, b in zip(one, other, strict=True)) < 1e-9
        assert relative(scores(q, k), scores(*one)) < 1e-10
    # Negative control: a rotation of the whole head is none of its symmetries.
    rotation = np.linalg.qr(RNG.normal(size=(6, 6)))[0]
    assert relative(scores(q, k), scores(rotation @ q, rotation @ k)) > 1e-2
    # Nor is the other layout of the pairs.
    other = {"half": "interleaved", "interleaved": "half"}[pairs]
    assert relative(scores(q, k), scores(*complex_element(q, k, other, np.exp(1j * np.arange(3.0))))) > 1e-2


def test_grouped_queries_share_one_matrix_and_rotary_ones_one_number():
    queries, key = [RNG.normal(size=(6, 5)) for _ in range(3)], RNG.normal(size=(6, 5))
    m = invertible(6)
    moved, key2 = [m @ one for one in queries], np.linalg.inv(m).T @ key
    assert max(relative(a.T @ key, b.T @ key2) for a, b in zip(queries, moved, strict=True)) < 1e-10
    one = attention.canonical_factors(np.concatenate(queries, 1), key)
    other = attention.canonical_factors(np.concatenate(moved, 1), key2)
    assert max(np.abs(a - b).max() for a, b in zip(one, other, strict=True)) < 1e-9
    assert relative(np.concatenate(queries, 1).T @ key, one[0].T @ one[1]) < 1e-10
    # Each query for itself is too much: the key can take back one matrix only.
    alone = [invertible(6) @ one for one in queries]
    assert relative(queries[1].T @ key, alone[1].T @ key2) > 1e-2
    stacked, stacked2 = np.concatenate(queries, 1), np.concatenate(moved, 1)
    c = RNG.normal(size=3) + 1j * RNG.normal(size=3)
    stacked2, key2 = complex_element(stacked, key, "half", c)
    one, other = (
        attention.canonical_rotary(stacked, key, pairs="half"),
        attention.canonical_rotary(stacked2, key2, pairs="half"),
    )
    assert max(np.abs(a - b).max() for a, b in zip(one, other, strict=True)) < 1e-9


def test_a_query_head_in_another_group_changes_the_answer():
    x = RNG.normal(size=(7, 5))
    q, k, v = RNG.normal(size=(4, 3, 5)), RNG.normal(size=(2, 3, 5)), RNG.normal(size=(2, 3, 5))
    out = RNG.normal(size=(4, 5, 3))

    def answer(order):
        heads = [
            softmax((x @ q[order[i]].T) @ (x @ k[i // 2].T).T) @ (x @ v[i // 2].T) @ out[order[i]].T for i in range(4)
        ]
        return sum(heads)

    assert relative(answer([0, 1, 2, 3]), answer([1, 0, 3, 2])) < 1e-12
    assert relative(answer([0, 1, 2, 3]), answer([2, 1, 0, 3])) > 1e-2


def test_factors_of_less_than_full_rank_lead_to_one_form_too():
    left, right = RNG.normal(size=(4, 6)), RNG.normal(size=(4, 7))
    left[3] = left[2] + left[1]
    m = invertible(4)
    one = attention.canonical_factors(left, right)
    other = attention.canonical_factors(m @ left, np.linalg.inv(m).T @ right)
    assert max(np.abs(a - b).max() for a, b in zip(one, other, strict=True)) < 1e-9
    assert (one[0][3] == 0).all()


def test_an_odd_head_has_no_pairs():
    with pytest.raises(ParameterError, match="this head has 5, an odd number"):
        attention.canonical_rotary(np.ones((5, 2)), np.ones((5, 2)), pairs="half")


def rms(x):
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-6)


def layer(x):
    x = x - x.mean(axis=-1, keepdims=True)
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-6)


def block(s, x, norm=rms):
    """One gated layer and one plain reader on a stream of width 8."""
    stream = s["embed"][x] + s["place"]
    normal = norm(stream) * s["gain1"]
    stream = stream + (np.tanh(normal @ s["gate"].T) * (normal @ s["up"].T)) @ s["down"].T
    return (norm(stream) * s["gain2"]) @ s["head"].T


def weights():
    return {"embed": RNG.normal(size=(20, 8)), "place": RNG.normal(size=8), "gain1": RNG.uniform(0.5, 2, 8),
            "gate": RNG.normal(size=(12, 8)), "up": RNG.normal(size=(12, 8)), "down": RNG.normal(size=(8, 12)),
            "gain2": RNG.uniform(0.5, 2, 8), "head": RNG.normal(size=(5, 8))}  # fmt: skip


STREAM = {"embeddings": ["embed", "place"], "writers": ["down"], "readers": ["gate", "up", "head"]}


def test_a_stream_behind_rmsnorm_is_turned_back():
    s, x = weights(), RNG.integers(20, size=9)
    plain = folds.fold_gain(folds.fold_gain(s, "gain1", ["gate", "up"]), "gain2", ["head"])
    assert relative(block(s, x), block(plain, x)) < 1e-10
    rotation = np.linalg.qr(RNG.normal(size=(8, 8)))[0]
    turned = folds.rotate_stream(plain, rotation, **STREAM)
    assert relative(block(s, x), block(turned, x)) < 1e-10
    assert relative(plain["embed"] @ plain["embed"].T, turned["embed"] @ turned["embed"].T) < TIGHT
    assert relative(plain["gate"] @ plain["gate"].T, turned["gate"] @ turned["gate"].T) < TIGHT
    one, other = (folds.canonical_stream(t, **STREAM, anchor="embed") for t in (plain, turned))
    assert max(np.abs(one[name] - other[name]).max() for name in one) < 1e-9
    assert relative(block(s, x), block(one, x)) < 1e-10
    # Negative control: with gains, only signed permutations pass.
    assert relative(block(s, x), block(folds.rotate_stream(s, rotation, **STREAM), x)) > 1e-2
    with pytest.raises(ParameterError, match="'head' has not as many"):
        folds.canonical_stream(plain, **STREAM, anchor="head")


def test_gains_shifts_and_means_of_a_layer_norm():
    s = {"gain": RNG.uniform(0.5, 2, 8), "shift": RNG.normal(size=8), "a.weight": RNG.normal(size=(5, 8)),
         "a.bias": RNG.normal(size=5), "down": RNG.normal(size=(8, 4)), "down.bias": RNG.normal(size=8)}  # fmt: skip
    h = RNG.normal(size=(7, 4))

    def answer(t):
        return (layer(h @ t["down"].T + t["down.bias"]) * t["gain"] + t["shift"]) @ t["a.weight"].T + t["a.bias"]

    g, b, mean = RNG.uniform(0.5, 2, 8), RNG.normal(size=8), RNG.normal(size=5)
    copy = dict(s)
    copy["gain"], copy["a.weight"] = s["gain"] * g, s["a.weight"] / g
    copy["shift"], copy["a.bias"] = s["shift"] * g + b, s["a.bias"] - s["a.weight"] / g @ b
    copy["down"], copy["down.bias"] = s["down"] + mean[:4], s["down.bias"] + mean[4]
    assert relative(answer(s), answer(copy)) < 1e-10
    one, other = (
        folds.centre_writers(folds.fold_gain(t, "gain", ["a.weight"], shift="shift"), {"down": 0, "down.bias": 0})
        for t in (s, copy)
    )
    assert max(np.abs(one[name] - other[name]).max() for name in one) < 1e-9
    assert relative(answer(s), answer(one)) < 1e-10
    del s["a.bias"]
    with pytest.raises(ParameterError, match=r"needs a bias beside 'a\.weight'"):
        folds.fold_gain(s, "gain", ["a.weight"], shift="shift")


def test_a_gated_layer_and_a_mixture_of_them():
    x = RNG.normal(size=(6, 8))

    def gated(t, x):
        return (np.tanh(x @ t["gate"].T) * (x @ t["up"].T)) @ t["down"].T

    def element(t):
        c, order = RNG.choice([-1, 1], 12) * np.exp(RNG.normal(size=12)), RNG.permutation(12)
        return {"gate": t["gate"][order], "up": (t["up"] * c[:, None])[order], "down": (t["down"] / c)[:, order]}

    experts, router = [weights() for _ in range(4)], RNG.normal(size=(4, 8))

    def mixture(router, experts):
        shares = softmax(x @ router.T)
        return sum(shares[:, [k]] * gated(one, x) for k, one in enumerate(experts))

    order = RNG.permutation(4)
    router2, experts2 = router[order], [element(experts[k]) for k in order]
    assert relative(mixture(router, experts), mixture(router2, experts2)) < 1e-10
    one, other = folds.canonical_experts(router, experts), folds.canonical_experts(router2, experts2)
    assert np.array_equal(one[0], other[0])
    assert max(np.abs(a[name] - b[name]).max() for a, b in zip(one[1], other[1], strict=True) for name in a) < 1e-9
    assert relative(mixture(router, experts), mixture(*one)) < 1e-10
    # Negative control: a gate's row cannot be scaled.
    wrong = dict(experts[0], gate=2 * experts[0]["gate"], down=experts[0]["down"] / 2)
    assert relative(gated(experts[0], x), gated(wrong, x)) > 1e-2


def test_logits_are_known_up_to_a_shift():
    w, b, x = RNG.normal(size=(5, 8)), RNG.normal(size=5), RNG.normal(size=(6, 8))
    w2, b2 = w + RNG.normal(size=8), b + 3.0
    assert relative(softmax(x @ w.T + b), softmax(x @ w2.T + b2)) < 1e-10
    one, other = (tuple(part for part in folds.centre_logits(*two) if part is not None) for two in ((w, b), (w2, b2)))
    assert max(np.abs(a - c).max() for a, c in zip(one, other, strict=True)) < 1e-9
    assert relative(softmax(x @ w.T + b), softmax(x @ one[0].T + one[1])) < 1e-10
    assert folds.centre_logits(w)[1] is None


def test_vocabularies_are_compared_by_their_strings():
    tokens, embed, head = ["b", "a", "d", "c"], RNG.normal(size=(4, 3)), RNG.normal(size=(4, 3))
    order = np.array([2, 0, 3, 1])
    one, names = folds.by_token([embed, head], tokens)
    other, _ = folds.by_token([embed[order], head[order]], [tokens[k] for k in order])
    assert names == ["a", "b", "c", "d"]
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    kept, names = folds.by_token([embed], tokens, keep=["a", "d", "z"])
    assert (names, np.array_equal(kept[0], embed[[1, 2]])) == (["a", "d"], True)
    with pytest.raises(ParameterError, match="3 of them different, for \\[4\\] rows"):
        folds.by_token([embed], ["a", "a", "b", "c"])
