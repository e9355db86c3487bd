"""The language of a text, by py3langid on a few probes."""

from __future__ import annotations

from collections import Counter

_PROBE_CHARS = 3000
_PLACES = (0.1, 0.5, 0.8)  # not the very beginning: title pages and prefaces are often in another language


def detect(text: str) -> str:
    """Return the ISO 639-1 code of the language that most probes of the text are in (`und` for an empty text)."""
    if not text.strip():
        return "und"
    import py3langid

    probes = [text[int(place * len(text)) :][:_PROBE_CHARS] for place in _PLACES]
    votes = Counter(str(py3langid.classify(probe)[0]) for probe in probes if probe.strip())
    best, n_votes = votes.most_common(1)[0]
    return best if n_votes > 1 else str(py3langid.classify(" ".join(probes))[0])
