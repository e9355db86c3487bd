"""What people call a card, and which card of the table they mean."""

from __future__ import annotations

import re
from collections.abc import Sequence

# Words that say nothing of which card it is.
_IDLE_WORDS = frozenset(
    (
        *(
            "nvidia",
            "geforce",
            "amd",
            "intel",
            "gpu",
            "radeon",
            "tesla",
            "quadro",
            "instinct",
            "apple",
            "google",
            "cpu",
        ),
        *(
            "core",
            "cores",
            "edition",
            "generation",
            "per",
            "workstation",
            "ws",
            "rtx",
            "gtx",
            "rx",
            "and",
            "the",
            "card",
        ),
        *("both", "gcds", "vcpu", "hbm2", "hbm2e", "hbm3", "hbm3e", "gddr6", "gddr6x", "gddr7"),
    )
)
_SPELLINGS = (
    (r"^\d+ ?x ", ""),  # how many of them
    (r"\b(rtx|gtx|tpu|mi|gaudi)(?=[a-z]?\d)", r"\1 "),
    (r"(\d{4})(ti|super|ada|laptop)", r"\1 \2"),
    (r"\bv5 ?lite(pod)?\b|\bv5litepod\b", "v5e"),
    (r"\btrillium\b", "v6e"),
    (r"\b(\d+)g\b", r"\1gb"),
    (r"\bsxm\d\b", "sxm"),
    (r"\bmi (\d)", r"mi\1"),
    (r"\bxeon gold (\d+c?).*", r"xeon gold \1"),
    (r"\b(\d+) ?(gb|gib)\b", r"\1gb"),
    (r"\bv(\d)([ep])-?\d+\b", r"v\1\2"),  # a slice of TPUs
    (r"\b(\d+)[ -]?cores?\b", r"\1c"),
    (r"\bdgx spark\b|\bgb10\b", "gb10 dgx spark"),
)
_MEMORY_OR_CORES = re.compile(r"^\d+(gb|c)$")
# Suffixes that name another card than the bare number does.
_OTHER_CARDS = frozenset(("ti", "super", "laptop", "max", "pro", "ultra", "xtx", "ada", "nvl"))
# What a bare name means.
_PREFERRED = {
    "a100": "a100 sxm 80gb",
    "a100 80gb": "a100 sxm 80gb",
    "a100 40gb": "a100 sxm 40gb",
    "h100": "h100 sxm",
    "h100 80gb": "h100 sxm",
    "h100 96gb": "h100 sxm",
    "3050": "geforce rtx 3050 8gb",
    "v100": "v100 sxm2",
    "p100": "p100 sxm2",
    "pro 6000": "rtx pro 6000 blackwell workstation",
    "pro 6000 blackwell": "rtx pro 6000 blackwell workstation",
    "6000 blackwell": "rtx pro 6000 blackwell workstation",
    "ryzen 9950x": "ryzen 9 9950x",
    "m3 128gb": "apple m3 max 40c",
}


def match(name: str, known: Sequence[str]) -> str | None:
    """Return the known card that a name means, or None.

    All words of the name but memory sizes, core counts and idle words have to be the card's; what the card has
    beyond them must not make it another card (`4070` is not `4070 Ti`). Of several the plainest, with the memory
    asked for, is taken.

    >>> match("NVIDIA A100-SXM4-80GB", ["a100 sxm 40gb", "a100 sxm 80gb"])
    'a100 sxm 80gb'
    >>> match("RTX 4091", ["geforce rtx 4090"])
    """
    asked = _words(name)
    preferred = _PREFERRED.get(" ".join(asked))
    if preferred in known:
        return preferred
    exact = {word for word in asked if not _MEMORY_OR_CORES.match(word)}
    size = set(asked) - exact
    telling = any(len(word) > 2 or any(character.isdigit() for character in word) for word in exact)
    ranked = []
    for card in known:
        words = set(_words(card))
        plain = {word for word in words if not _MEMORY_OR_CORES.match(word)}
        beyond = plain - exact
        other = beyond & _OTHER_CARDS or any(character.isdigit() for word in beyond for character in word)
        if telling and not exact - plain and not other:
            ranked.append((len(size - words) + len(words - plain - size), len(beyond), card))
    return min(ranked)[2] if ranked else None


def _words(name: str) -> list[str]:
    text = re.sub(r"[_()/,]|\s+", " ", name.lower()).strip()
    for pattern, plain in _SPELLINGS:
        text = re.sub(pattern, plain, text)
    return [word for word in re.split(r"[ -]+", text) if word and word not in _IDLE_WORDS]
