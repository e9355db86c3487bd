"""What items give away: how often rules that understand nothing choose the right option.

Each solver looks at the text alone - how long an option is, where it stands, what was said last, most or first, how
common its words are, which words it shares with the context - and is given every item of a family. A family on which a
solver is far from chance measures that solver's rule too; `ltm evalset STUDY` says so. In contrasts and synergies a
solver scores each cell and the rule of the family makes its answer, so that what cancels for models cancels here.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from ltm.records import Item

_WORD = re.compile(r"\w+")
_MANY = 4.0  # standard errors from chance that a report names
_POINTS = 0.05
_TIE = 1e-9

Solver = Callable[[str, str, int], float]  # context, continuation, place of the cell -> more is likelier


def solvers(counts: Mapping[str, int]) -> dict[str, Solver]:
    """Return the solvers by name; `counts` is how often words stand in training books (small letters)."""
    total = sum(counts.values()) + 1.0

    def unigram(_context: str, continuation: str, _place: int) -> float:
        return sum(math.log((counts.get(word, 0) + 0.5) / total) for word in _words(continuation))

    return {
        "longest": lambda _c, continuation, _p: float(len(continuation)),
        "shortest": lambda _c, continuation, _p: -float(len(continuation)),
        "longest context": lambda context, _o, _p: float(len(context)),
        "first listed": lambda _c, _o, place: -float(place),
        "said last": lambda context, continuation, _p: _last(context, continuation),
        "said first": lambda context, continuation, _p: _first(context, continuation),
        "said most": lambda context, continuation, _p: float(_words(context).count(_head(continuation))),
        "unigram": unigram,
        "same words": lambda context, continuation, _p: _overlap(context, continuation),
    }


def judge(items: Sequence[Item], counts: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, dict[str, float]]]:
    """Return, by family and solver, accuracy, chance and how many standard errors lie between them.

    Args:
        items: A bank; controls, and rules without right and wrong, are passed over.
        counts: Word counts of training books by language, in small letters.
    """
    by_language = {code: solvers(words) for code, words in counts.items()}
    default = solvers({})
    families: dict[str, list[Item]] = {}
    for item in items:
        if not item.control and item.rule in ("pair", "choice", "likelihood", "contrast", "synergy"):
            families.setdefault(item.family, []).append(item)
    return {
        family: {name: _judged(members, name, by_language, default) for name in default}
        for family, members in families.items()
    }


def telling(judged: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Return the solvers that are off chance by more than four standard errors and five points, either way.

    Below chance is as telling as above it: the opposite rule is then above.
    """
    return [
        name for name, row in judged.items() if abs(row["z"]) > _MANY and abs(row["accuracy"] - row["chance"]) > _POINTS
    ]


def correct(item: Item, solver: Solver) -> float:
    """Return 1 where a solver chooses the right option, 0 where a wrong one, and a share for ties."""
    s = [solver(c, o, place) for place, (c, o) in enumerate(zip(item.contexts, item.continuations, strict=True))]
    if item.rule == "contrast":
        return _sign((s[0] - s[1]) - (s[2] - s[3]))
    if item.rule == "synergy":
        return _sign((s[0] - s[1]) - (s[2] - s[3]) - (s[4] - s[5]) + (s[6] - s[7]))
    n = len(s) // 2 if _has_neutral(item) else len(s)
    score = s[:n]  # what a solver says after the neutral context says nothing of the item
    best = max(score)
    tied = [i for i in range(n) if score[i] >= best - _TIE]
    return 1 / len(tied) if item.gold in tied else 0.0


def _judged(
    members: Sequence[Item], name: str, by_language: Mapping[str, dict[str, Solver]], default: dict[str, Solver]
) -> dict[str, float]:
    right = [correct(item, by_language.get(item.language, default)[name]) for item in members]
    chance = [1 / _options(item) for item in members]
    mean, expected = sum(right) / len(right), sum(chance) / len(chance)
    spread = math.sqrt(sum(c * (1 - c) for c in chance)) / len(chance)
    return {"accuracy": mean, "chance": expected, "z": (mean - expected) / spread if spread else 0.0}


def _options(item: Item) -> int:
    if item.rule in ("contrast", "synergy"):
        return 2
    return len(item.continuations) // 2 if _has_neutral(item) else len(item.continuations)


def _has_neutral(item: Item) -> bool:
    half, odd = divmod(len(item.continuations), 2)
    return item.rule == "choice" and not odd and half > 1 and item.continuations[:half] == item.continuations[half:]


def _sign(margin: float) -> float:
    return 1.0 if margin > _TIE else 0.0 if margin < -_TIE else 0.5


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _head(continuation: str) -> str:
    words = _words(continuation)
    return words[0] if words else ""


def _last(context: str, continuation: str) -> float:
    words, head = _words(context), _head(continuation)
    return float(len(words) - 1 - words[::-1].index(head)) if head in words else -1.0


def _first(context: str, continuation: str) -> float:
    words, head = _words(context), _head(continuation)
    return -float(words.index(head)) if head in words else -float(len(words) + 1)


def _overlap(context: str, continuation: str) -> float:
    one, two = Counter(_words(context)), Counter(_words(continuation))
    return sum((one & two).values()) / max(1, sum(two.values()))
