"""Controls: the same item with its distant context damaged, to see what a model's answer rests on.

`shuffled` mixes the words of the distant context, `nouns` keeps what looks like a noun or a name of it. The words next
to the continuation stay as they are. Source: O'Connor and Andreas 2021, who found that either costs little of what a
context tells: linking may be no more than known words. A noun is what is neither a function word nor has an ending that
nouns hardly have; there is no parser here.
"""

from __future__ import annotations

import re

import numpy as np

from ltm.evalset.language import Language
from ltm.evalset.passages import Draft

KINDS = ("shuffled", "nouns")
_NEAR_SHARE = 0.2  # of the context, the nearest words, stay whole
_LEAST_WORDS = 12  # contexts shorter than this are left as they are
_WORD = re.compile(r"\S+")


def damaged(draft: Draft, kind: str, language: Language, rng: np.random.Generator) -> Draft | None:
    """Return the same cells after damaged contexts; None where no context is long enough."""
    known: dict[str, str] = {}
    for context in draft.contexts:
        if context not in known and context != language.neutral:
            known[context] = _damage(context, kind, language, rng)
    contexts = [known.get(context, context) for context in draft.contexts]
    if contexts == draft.contexts:
        return None
    return Draft(draft.cluster, draft.language, contexts, draft.continuations, draft.gold, draft.level)


def _damage(context: str, kind: str, language: Language, rng: np.random.Generator) -> str:
    words = [match.span() for match in _WORD.finditer(context)]
    n_far = len(words) - round(_NEAR_SHARE * len(words))
    if len(words) < _LEAST_WORDS:
        return context
    far = [context[start:end] for start, end in words[:n_far]]
    near = context[words[n_far][0] :]
    if kind == "shuffled":
        kept = [far[int(i)] for i in rng.permutation(len(far))]
    else:
        pattern = language.not_a_noun()
        kept = [
            bare for word in far if (bare := word.strip("\"'“”‘’«»().,;:!?…-—*_[]")) and not pattern.match(bare.lower())
        ]
        kept = [word for word in kept if any(char.isalpha() for char in word)]
    return f"{' '.join(kept)} {near}".lstrip()
