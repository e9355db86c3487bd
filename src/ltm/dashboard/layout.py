"""What a chapter is, and the places in it that the script fills: figures, tables, lists of words.

Reads: nothing. Writes: nothing; HTML text. Sentences are written in every language at once (see `ltm.dashboard.words`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ltm.dashboard.tables import Figure
from ltm.dashboard.words import Argument, both, same, spans


@dataclass
class Chapter:
    """One chapter: its sentence, its body and the files it depends on."""

    finding: str
    body: str = ""
    figures: dict[str, Figure] = field(default_factory=dict)
    needs: tuple[str, ...] = ()

    def add(self, name: str, figure: Figure, title: str = "", subtitle: str = "") -> None:
        """Put a figure at the end of the chapter: a drawing under a title, or a table alone where there is none."""
        self.figures[name] = figure
        self.body += figure_slot(name, title, subtitle) if title else table_slot(name)


def figure_slot(name: str, title: str, subtitle: str) -> str:
    """Return the place where the script draws a figure."""
    return (
        f'<figure class="figure" id="figure-{name}" data-figure="{name}">'
        f"<figcaption><h3>{both(title)}</h3><p>{both(subtitle)}</p></figcaption></figure>"
    )


def table_slot(name: str) -> str:
    """Return the place where the script lays out a table."""
    return f'<div class="figure table-only" id="figure-{name}" data-figure="{name}"></div>'


def definitions(*names: str) -> str:
    """Return a definition list of words that the page uses."""
    return (
        "<dl>"
        + "".join(f"<dt>{both(f'define.{n}.term')}</dt><dd>{both(f'define.{n}.text')}</dd>" for n in names)
        + "</dl>"
    )


def conditions(rows: list[tuple[str, Argument]]) -> str:
    """Return a list of conditions; a value given as text is text of the study and not translated."""
    items = []
    for key, value in rows:
        shown = same(value) if isinstance(value, str) else both("page.value", value=value)
        items.append(f"<dt>{both(f'cond.{key}')}</dt><dd>{shown}</dd>")
    return f'<dl class="conditions">{"".join(items)}</dl>'


def heading(key: str) -> str:
    """Return a heading inside a chapter."""
    return f"<h3>{both(key)}</h3>"


def note(*sentences: str) -> str:
    """Return a small paragraph of sentences that are HTML already; nothing for none."""
    kept = [sentence for sentence in sentences if sentence]
    return f'<p class="note">{" ".join(kept)}</p>' if kept else ""


def bullets(texts: list[dict[str, str]]) -> str:
    """Return a list of sentences, each by language; nothing for none."""
    items = "".join(f"<li>{spans(text)}</li>" for text in texts if text)
    return f"<ul>{items}</ul>" if items else ""


def folded(title: str, inner: str, opened: bool = False) -> str:
    """Return a part that the reader can open."""
    return f"<details{' open' if opened else ''}><summary>{both(title)}</summary>{inner}</details>" if inner else ""
