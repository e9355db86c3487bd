"""Items as a person reads them: what comes before, what may follow, and which of it is right."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

from ltm.records import Book, Item

_WIDTH = 110
_RULES = {
    "pair": "which is likelier?",
    "choice": "which gains most from the context?",
    "likelihood": "which is likeliest?",
    "contrast": "does the right premise help the right ending?",
    "gain": "how much does the passage in front help?",
    "synergy": "do both facts together tell more than each alone?",
    "bits_per_byte": "how well is it predicted?",
    "adapt": "is the rule of the examples learnt?",
    "generate": "is one of the answers written?",
}


def as_text(item: Item, books: Mapping[str, Book], about: str = "") -> str:
    """Return an item in lines: a head with family, level, source and control, then its contexts and options."""
    head = f"--- {item.family}{_steps(item)}  {item.ability}, {item.language}, {_source(item, books)}  [{item.item_id}]"
    question = about or _RULES.get(item.rule, item.rule)
    lines = [head, f"    {question}"]
    if item.control:
        lines.append(
            f"    control: distant context {_CONTROLS.get(item.control, item.control)}; it counts for no ability"
        )
    return "\n".join([*lines, *_body(item)])


_CONTROLS = {"shuffled": "with its words shuffled", "nouns": "with its nouns only"}


def _steps(item: Item) -> str:
    return f", level {item.level}" if item.level else ""


def _source(item: Item, books: Mapping[str, Book]) -> str:
    if item.source:
        return item.source
    book = books.get(item.cluster)
    return f"{book.title} ({book.author})" if book else item.cluster


def _body(item: Item) -> list[str]:
    if item.rule in ("contrast", "synergy"):
        return _premises(item)
    if item.rule == "adapt":
        return _examples(item)
    n = len(item.continuations) // 2 if _repeats(item) else len(item.continuations)
    cells = list(zip(item.contexts[:n], item.continuations[:n], strict=True))
    if len({context for context, _ in cells}) == 1:
        lines = _paragraph("context", cells[0][0])
        lines += [line for place, (_, text) in enumerate(cells) for line in _option(item, place, text)]
        return lines + (
            [f"    compared with the same options after: {item.contexts[n]!r}"] if n < len(item.contexts) else []
        )
    lines = []
    for place, (context, text) in enumerate(cells):
        lines += _paragraph(f"{_mark(item, place)} context {place + 1}", context)
        if place == len(cells) - 1 or cells[place + 1][1] != text:
            lines += _paragraph("  then", text)
    return lines


def _premises(item: Item) -> list[str]:
    """Show each premise once with both endings; the right one is starred where the premise decides."""
    found: dict[str, list[str]] = {}
    for context, text in zip(item.contexts, item.continuations, strict=True):
        found.setdefault(context, []).append(text)
    names = {"contrast": ("P", "P'"), "synergy": ("both", "A alone", "B alone", "neither")}[item.rule]
    lines = []
    for place, (name, (context, endings)) in enumerate(zip(names, found.items(), strict=False)):
        lines += _paragraph(f"premise {name}", context)
        right = {("contrast", 0): 0, ("contrast", 1): 1, ("synergy", 0): 0}.get((item.rule, place))
        lines += [f"      {'*' if right == i else ' '} {_plain(ending)}" for i, ending in enumerate(endings)]
    return lines


def _examples(item: Item) -> list[str]:
    lines = [f"    {item.gold} examples to learn from, {len(item.contexts) - item.gold} questions:"]
    for place, (context, text) in enumerate(zip(item.contexts, item.continuations, strict=True)):
        if place < 4 or item.gold <= place < item.gold + 3:
            lines.append(f"      {'?' if place >= item.gold else ' '} {_plain(context)} *{_plain(text)}*")
    return lines


def _option(item: Item, place: int, text: str) -> list[str]:
    return textwrap.wrap(
        f"{_mark(item, place)} {_plain(text)}", _WIDTH, initial_indent="      ", subsequent_indent="        "
    )


def _mark(item: Item, place: int) -> str:
    starred = item.rule == "generate" or (item.rule in ("pair", "choice", "likelihood") and place == item.gold)
    return "*" if starred else " "


def _paragraph(name: str, text: str) -> list[str]:
    if not text:
        return [f"    {name}: none"]
    return textwrap.wrap(f"{name}: {_plain(text)}", _WIDTH, initial_indent="    ", subsequent_indent="      ")


def _plain(text: str) -> str:
    """Return a text on one line; a paragraph break is told by a sign."""
    return " ".join(text.strip().replace("\n\n", " ¶ ").split())


def _repeats(item: Item) -> bool:
    half, odd = divmod(len(item.continuations), 2)
    return item.rule == "choice" and not odd and half > 1 and item.continuations[:half] == item.continuations[half:]
