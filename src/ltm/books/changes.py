"""What a cleaning step took away and put in, as a list of edits that can be undone.

The steps are plain functions from text to text; their edits are found afterwards, when a person asks. Nearly all of a
text stays as it is, so a walk that looks for the next place where both texts go on alike is enough. It never gives a
wrong answer: the edits always turn one text into the other, at worst in larger pieces than need be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_FAR = 1 << 40
_WINDOWS = ((24, 2_000), (64, _FAR), (10, 400), (4, 40))  # characters that must agree, how far they may lie
_FAR_SEARCHES = 60  # a step that needs more changes every line, and far off there is nothing to find
_MAX_INSERTED = 4
_BLOCK = 4096


@dataclass(frozen=True, slots=True)
class Edit:
    """One change of a text."""

    start: int  # character offset in the text before the step
    removed: str
    inserted: str


def find_edits(before: str, after: str) -> list[Edit]:
    """Return edits that turn `before` into `after`, in order, none overlapping."""
    edits: list[Edit] = []
    i = j = far = 0
    while True:
        same = _common(before, i, after, j)
        i, j = i + same, j + same
        if i == len(before) and j == len(after):
            return edits
        gone, come = _resume(before, i, after, j, far < _FAR_SEARCHES)
        far += gone > _WINDOWS[0][1] or come == gone == 1
        edit = Edit(i, before[i : i + gone], after[j : j + come])
        if edits and edits[-1].start + len(edits[-1].removed) == i:
            last = edits.pop()
            edit = Edit(last.start, last.removed + edit.removed, last.inserted + edit.inserted)
        edits.append(edit)
        i, j = i + gone, j + come


def undo(after: str, edits: Sequence[Edit]) -> str:
    """Return the text before a step from the text after it and the step's edits."""
    kept: list[str] = []
    position = 0  # in `after`
    shift = 0  # of `after` against `before`
    for edit in edits:
        at = edit.start + shift
        kept += [after[position:at], edit.removed]
        position = at + len(edit.inserted)
        shift += len(edit.inserted) - len(edit.removed)
    return "".join([*kept, after[position:]])


def _common(a: str, i: int, b: str, j: int) -> int:
    """Return how many characters agree from here on."""
    total = 0
    while True:
        x, y = a[i + total : i + total + _BLOCK], b[j + total : j + total + _BLOCK]
        if x != y:
            low, high = 0, min(len(x), len(y))
            while low < high:
                middle = (low + high + 1) // 2
                low, high = (middle, high) if x[:middle] == y[:middle] else (low, middle - 1)
            return total + low
        if not x:
            return total
        total += len(x)


def _resume(before: str, i: int, after: str, j: int, far: bool) -> tuple[int, int]:
    """Return how many characters go and come before both texts agree again."""
    if j == len(after):
        return len(before) - i, 0
    for window, reach in _WINDOWS:
        if reach == _FAR and not far:
            continue
        best: tuple[int, int] | None = None
        for come in range(_MAX_INSERTED + 1):
            piece = after[j + come : j + come + window]
            if not piece or (len(piece) < window and j + come + window < len(after)):
                break
            found = before.find(piece, i, i + reach)
            if found >= 0 and (best is None or found - i + come < sum(best)):
                best = (found - i, come)
        if best is not None and sum(best) > 0:
            return best
    window, reach = _WINDOWS[0]
    back = after.find(before[i : i + window], j, j + reach) if i + window < len(before) else -1
    if back > j:  # a match before this one was too far ahead
        return 0, back - j
    return min(1, len(before) - i), 1  # one character for another
