"""The grid of QuRD: every sampler with every representation it goes with, by the names that both codes use [1].

[1] Godinot, Le Merrer, Penzo, Taïani, Trédan. Queries, Representation & Detection: The Next 100 Model Fingerprinting
Schemes. AAAI 2025. Which combinations there are was read off the authors' results.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Combination:
    """One scheme of the grid.

    Args:
        split: which of the victim's data the queries are drawn from, "train" or "test"; that is the caller's to give.
        name: QuRD's, "Negative/Labels".
        scheme: ours, "negative+labels+hamming".
        params: of our scheme.
    """

    split: str
    name: str
    scheme: str
    params: dict[str, Any]


SPLITS = ("train", "test")
_SAMPLERS: dict[str, tuple[str, dict[str, Any]]] = {
    "Random": ("random", {}),
    "Negative": ("negative", {}),
    "NegativeAugment": ("negative-augment", {}),
    "RandomSubsample10": ("subsample", {"masks": 10}),
    "RandomSubsample100": ("subsample", {"masks": 100}),
    "NegativeSubsample10": ("subsample", {"masks": 10, "seeds": "negative"}),
    "NegativeSubsample100": ("subsample", {"masks": 100, "seeds": "negative"}),
    "Adversarial": ("adversarial", {}),
    "NegativeAdversarial": ("adversarial", {"seeds": "negative"}),
    "Boundary": ("boundary", {}),
}
# Representation, its parameters, and the distance it is always held against.
_ANSWERS: dict[str, tuple[str, dict[str, Any], str]] = {
    "Labels": ("labels", {}, "hamming"),
    "Logits": ("logits", {}, "cosine"),
    "SAC": ("correlation", {}, "l2"),
    "HardSAC": ("correlation", {"answers": "labels"}, "l2"),
}
_PAIRS: dict[str, tuple[str, dict[str, Any], str]] = {
    "DDV": ("decision-distance", {}, "flat-cosine"),
    "HardDDV": ("decision-change", {}, "hamming"),
}
_MASKS: dict[str, tuple[str, dict[str, Any], str]] = {"ZLIME": ("local-explanations", {"answers": "logits"}, "l2")}


def grid(budget: int) -> list[Combination]:
    """The combinations that a budget of so many queries allows.

    Args:
        budget: queries to a suspect. Pairs need an even number, samplers of k masks an input a multiple of k: at 100
            and 200 there are 96 combinations, at 10, 20 and 50 there are 76.
    """
    found = []
    for split in SPLITS:
        for sampler, (ours, settings) in _SAMPLERS.items():
            if budget % settings.get("masks", 2 if ours == "adversarial" else 1):
                continue
            answers = _ANSWERS | (_PAIRS if ours == "adversarial" else {}) | (_MASKS if ours == "subsample" else {})
            found += [
                Combination(
                    split=split,
                    name=f"{sampler}/{representation}",
                    scheme=f"{ours}+{part}+{distance}",
                    params={f"sampler.{key}": value for key, value in settings.items()}
                    | {f"representation.{key}": value for key, value in options.items()},
                )
                for representation, (part, options, distance) in answers.items()
            ]
    return found
