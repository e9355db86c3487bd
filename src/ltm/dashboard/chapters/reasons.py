"""Why an ability or a family of questions cannot be measured, in the words of each language.

Reads: `Reliability.reasons` and `.needed` (code -> measured, asked for). Writes: nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from ltm.dashboard.inputs import number
from ltm.dashboard.words import LANGUAGES, Argument, Fixed, texts
from ltm.records import Reliability

_TOLD = ("too_few_runs", "no_items", "no_family", "untrained", "ngram", "split_half", "icc")  # in this order
_DIGITS = {"too_few_runs": 0, "untrained": 1, "ngram": 1, "split_half": 2, "icc": 2}


def in_words(row: Reliability, families: Sequence[str] = ()) -> dict[str, str]:
    """Return why something is not admitted, by language; a reason without a known code stays as it is written.

    Args:
        row: Of a family or of a whole ability.
        families: Names of the ability's families, for the reason that none of them can be measured.
    """
    if row.admitted:
        return {}
    parts = [part for code in _TOLD if code in row.reasons and (part := _one(code, row, families))]
    if not parts:
        return dict.fromkeys(LANGUAGES, row.reason)
    return {language: "; ".join(part[language] for part in parts) for language in LANGUAGES}


def _one(code: str, row: Reliability, families: Sequence[str]) -> dict[str, str]:
    if code == "no_items":
        return texts("reason.no_items")
    if code == "no_family":
        return texts("reason.no_family", list=", ".join(families))
    needed = number(row.needed.get(code))
    asked: Argument = Fixed(needed, 0 if needed is not None and needed.is_integer() else 2)
    value = number(row.reasons[code])
    if value is None:
        return texts(f"reason.{code}_unknown", needed=asked)
    return texts(f"reason.{code}", value=Fixed(value, _DIGITS[code]), needed=asked)
