"""Find the paragraphs of a text whose lines were broken by hand, and leave verse as it is.

A line was broken by a typesetter, not by a poet, if the first word of the next line would not have fitted: that test
needs no dictionary and no language. Blocks that fail it keep their lines.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence

from ltm.books.readers.base import HEADING

_LONG_LINE = 120  # characters; nobody breaks lines there by hand
_MIN_WIDTH = 45
_MAX_SAMPLE_LINES = 20_000


def to_paragraphs(text: str) -> str:
    """Return the text with one blank line between paragraphs, hard-wrapped lines joined, spaces single.

    Lines of verse stay lines; a line that starts with `HEADING` begins a paragraph of its own.
    """
    blocks = _blocks(text)
    width = wrap_width(blocks)
    if width is None:
        paragraphs = _from_unwrapped(blocks)
    else:
        indent = _paragraph_indent(blocks)
        parts = [part for block in blocks for part in _split_at_indents(block, indent)]
        paragraphs = ["\n".join(_rejoin(part, width)) for part in parts]
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph)


def wrap_width(blocks: Sequence[Sequence[str]]) -> int | None:
    """Return the width, in characters, at which the lines of a text were broken, or None if they were not."""
    lines = [line for block in blocks for line in block][:_MAX_SAMPLE_LINES]
    total = sum(map(len, lines))
    if not total or sum(len(line) for line in lines if len(line) > _LONG_LINE) > 0.2 * total:
        return None
    inner = sorted(len(line) for block in blocks if len(block) > 2 for line in block[:-1])
    if len(inner) < 20:
        return None
    width = inner[int(0.95 * (len(inner) - 1))]
    full = boundaries = 0
    for block in blocks:
        if len(block) > 2:
            fits = _full_lines(block, width)
            full, boundaries = full + sum(fits), boundaries + len(fits)
    return width if width >= _MIN_WIDTH and full > 0.4 * boundaries else None


def _blocks(text: str) -> list[list[str]]:
    blocks: list[list[str]] = [[]]
    if "\t" in text:
        text = text.expandtabs(4)
    for line in map(str.rstrip, text.split("\n")):
        if not line:
            if blocks[-1]:
                blocks.append([])
            continue
        if line.startswith(HEADING) and blocks[-1]:
            blocks.append([])
        blocks[-1].append(line)
    return blocks if blocks[-1] else blocks[:-1]


def _full_lines(block: Sequence[str], width: int) -> list[bool]:
    """Tell for each line but the last whether the first word of the next one would have overrun the width."""
    return [len(a) + 1 + len(b.split(None, 1)[0]) > width for a, b in itertools.pairwise(block)]


def _from_unwrapped(blocks: Sequence[Sequence[str]]) -> list[str]:
    """Each long line is a paragraph; short lines between blank lines belong together, as verse or a title does."""
    n_lines = sum(map(len, blocks))
    # a text without blank lines has one paragraph a line
    is_loose = len(blocks) < 0.1 * n_lines and sum(len(line) for block in blocks for line in block) > 60 * n_lines
    paragraphs = []
    for block in blocks:
        lines = [_tidy(line) for line in block]
        if is_loose or any(len(line) > _LONG_LINE for line in lines):
            paragraphs.extend(lines)
        else:
            paragraphs.append("\n".join(lines))
    return paragraphs


def _paragraph_indent(blocks: Sequence[Sequence[str]]) -> tuple[int, int] | None:
    """Return (indent of running lines, indent of a paragraph's first line), or None where blank lines do that work."""
    inside = Counter(_indent(line) for block in blocks for line in block[1:])
    if not inside:
        return None
    base = inside.most_common(1)[0][0]
    deeper = Counter({indent: n for indent, n in inside.items() if indent >= base + 2})
    if not deeper or not 0.03 * inside.total() < deeper.most_common(1)[0][1] < 0.6 * inside.total():
        return None
    return base, deeper.most_common(1)[0][0]


def _split_at_indents(block: Sequence[str], indent: tuple[int, int] | None) -> list[list[str]]:
    if indent is None:
        return [list(block)]
    base, first = indent
    parts: list[list[str]] = []
    for line in block:
        depth = _indent(line)
        starts = base + 2 <= depth <= first + 2
        if starts or not parts or (depth > first + 2) != (_indent(parts[-1][-1]) > first + 2):
            parts.append([])
        parts[-1].append(line)
    return parts


def _rejoin(block: Sequence[str], width: int) -> list[str]:
    lines = [_tidy(line) for line in block]
    if len(block) < 2 or not _is_prose(block, lines, width):
        return lines
    return [" ".join(lines)]


def _is_prose(block: Sequence[str], lines: Sequence[str], width: int) -> bool:
    n = len(block) - 1
    full = sum(_full_lines(block, width)) / n
    lower = sum(line[:1].islower() for line in lines[1:]) / n
    if full > 0.95:
        return True
    if n >= 3 and lower < 0.15:
        return False  # every line begins with a capital letter: verse, a list, a table
    if full >= 0.7 or (full >= 0.4 and lower >= 0.5):
        return True
    own_width = max(map(len, block[:-1]))  # a quotation set narrower than the rest
    narrow = sum(_full_lines(block, own_width - 4)) / n
    return n >= 4 and own_width >= _MIN_WIDTH and narrow > 0.9 and lower > 0.6


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _tidy(line: str) -> str:
    return " ".join(line.split()) if "  " in line or line[:1] == " " or not line.isprintable() else line
