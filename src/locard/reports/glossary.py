"""Words of a report, explained once for who meets them first."""

from __future__ import annotations

GLOSSARY: dict[str, tuple[str, str]] = {
    "victim": ("Victim", "The protected model, whose owner took the fingerprint. The word accuses nobody."),
    "suspect": ("Suspect", "The model that was examined. It is called so whatever the outcome."),
    "fingerprint": (
        "Fingerprint",
        "Chosen inputs (queries) together with the victim's answers to them. The suspect is asked the same queries.",
    ),
    "score": (
        "Score",
        "How much the suspect's answers resemble the victim's; higher is more alike. By itself it says nothing, "
        "because good models of one task resemble each other.",
    ),
    "reference": (
        "Reference model",
        "A model known to have been made independently of the victim, scored in the same way as the suspect.",
    ),
    "group": (
        "Group (stratum)",
        "References that are equally near to the victim: other data, the same data, the same architecture too, or "
        "thefts of somebody else's model. Nearer models score higher by nature, so each group is counted on its own.",
    ),
    "p-value": (
        "p-value",
        "Among the models of a group and the suspect itself, the share that scores at least as high as the suspect. It "
        "bounds the probability of so high a score if the suspect is one more such model. It cannot be smaller than 1 "
        "in (references + 1).",
    ),
    "alpha": (
        "Alpha",
        "The error rate that was accepted beforehand: the share of independently made suspects that may be flagged.",
    ),
    "power": (
        "Power",
        "The share of real thefts that would be flagged, counted on models known to be derived from the victim. The "
        "interval (Clopper-Pearson, 95%) says how far so few models can tell.",
    ),
    "journal": (
        "Journal",
        "Answers kept from earlier questions to the same suspect; what is in it is not asked again.",
    ),
    "access": (
        "Access",
        "What the suspect shows of its answers: labels only, probabilities, logits, gradients, or its weights.",
    ),
    "combination": (
        "Combined p-value",
        "Conformal rank: each scheme ranks the suspect among the same references, the ranks are added up, and the sums "
        "are ranked again. Bonferroni: the smallest p-value times the number of schemes, where references differ.",
    ),
}
