"""Transfer of a made-up rule: shown a few times and asked for (contrast), or learnt by adapting the model (adapt).

Both premises of a contrast hold the same question; only what the demonstrations follow differs, and both answers occur
in either premise equally often. So an answer that is said last, first or most is no answer. Sources: in-context
learning of rules over nonce words; Wug tests (BabyLM 2025).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ltm.evalset.frames import Demonstration, fill
from ltm.evalset.material import Entry, Material, pick
from ltm.evalset.passages import Draft, Sizes
from ltm.evalset.transfer import four_cells, with_mark

Case = tuple[dict[str, Entry], tuple[str, str]]  # what is shown, and the answer under either rule

_KINDS_OF_SYSTEM = 4
_TRAINING_EXAMPLES, _PROBES = 16, 8  # of one rule system


def demonstrations(
    shown: Demonstration, material: Material, language: str, cluster: str, sizes: Sizes, rng: np.random.Generator
) -> Iterator[Draft]:
    """Yield items of one template without end."""
    while True:
        if shown.rule in ("kind", "gender"):
            *examples, query = _sorted_things(shown, material, sizes.shots, rng)
        else:
            *examples, query = (_words(shown, material, rng) for _ in range(sizes.shots + 1))
        premises = []
        for which in (0, 1):
            lines = [_say(shown, case, case[1][which]) for case in examples]
            premises.append(" ".join([*lines, _question(shown, query)]))
        yield four_cells(cluster, language, *with_mark(premises, list(query[1])), shown.level)


def rule_systems(
    line: str, material: Material, language: str, cluster: str, sizes: Sizes, rng: np.random.Generator
) -> Iterator[Draft]:
    """Yield systems of made-up kinds: everyone of a kind carries the same thing.

    Cells are examples to learn from and, from `gold` on, probes about new people: the kind is told, the thing asked.
    """
    del sizes
    while True:
        labels = pick(material.labels, _KINDS_OF_SYSTEM, rng)
        things = pick(material.things, _KINDS_OF_SYSTEM, rng)
        n = _TRAINING_EXAMPLES + _PROBES
        names = _many_people(material, n, rng)
        contexts, continuations = [], []
        for place, person in enumerate(names):
            kind = place % _KINDS_OF_SYSTEM
            noun = things[kind]
            contexts.append(fill(line, {"a": person, "k": ("n", {"nom": labels[kind]})}))
            continuations.append(f" {noun.forms()['acc']}.")
        yield Draft(cluster, language, contexts, continuations, _TRAINING_EXAMPLES)


def _many_people(material: Material, n: int, rng: np.random.Generator) -> list[Entry]:
    everyone = [
        (gender, {case: stem + ending for case, ending in material.cases[gender].items()})
        for gender in sorted(material.names)
        for stem in material.names[gender]
    ]
    return pick(everyone, n, rng)


def _say(shown: Demonstration, case: Case, answer: str) -> str:
    return fill(shown.say, {**case[0], "=": ("n", {"nom": answer})})


def _question(shown: Demonstration, case: Case) -> str:
    return fill(shown.say[: shown.say.index("{=")], case[0]).rstrip()


def _words(shown: Demonstration, material: Material, rng: np.random.Generator) -> Case:
    """Return a case of the rules that look at words: position, odd."""
    one, two = pick(material.words, 2, rng)
    if shown.rule == "position":
        return {"1": _word(one), "2": _word(two)}, (one, two)
    order = [_word(one), _word(two), _word(two)]
    placed = [order[int(i)] for i in rng.permutation(3)]
    return dict(zip("123", placed, strict=True)), (one, two)


def _sorted_things(shown: Demonstration, material: Material, shots: int, rng: np.random.Generator) -> list[Case]:
    """Return cases of the rules that look at a kind of thing or person: half of the examples of each, mixed."""
    halves = [place % 2 for place in range(shots)]
    sides = [halves[int(i)] for i in rng.permutation(shots)]
    sides.append(int(rng.integers(2)))
    if shown.rule == "gender":
        one, two = pick(material.places, 2, rng)
        answers = (one.forms()["to"], two.forms()["to"])
        entries = material.people(tuple("mf"[side] for side in sides), rng)
    else:
        one_kind, two_kind = pick(sorted(material.kinds), 2, rng)
        words = _apart(material.kinds[one_kind], material.kinds[two_kind], shots, rng)
        first, second = pick(material.labels, 2, rng)
        answers = (first, second)
        entries = [_word(words[side].pop()) for side in sides]
    return [({"1": entry}, (answers[side], answers[1 - side])) for side, entry in zip(sides, entries, strict=True)]


def _apart(one: list[str], two: list[str], n: int, rng: np.random.Generator) -> tuple[list[str], list[str]]:
    """Return at most `n` words of each of two kinds, none of which is of both."""
    only = [word for word in one if word not in two], [word for word in two if word not in one]
    return pick(only[0], min(n, len(only[0])), rng), pick(only[1], min(n, len(only[1])), rng)


def _word(word: str) -> Entry:
    return "n", {"nom": word}
