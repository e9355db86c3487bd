"""The chapters of the page: each opens with its finding in a sentence, then shows the figures behind it.

Reads: `Inputs`. Writes: nothing; a chapter is HTML text plus the figures that the script fills in. Sentences are
written in every language at once (see `ltm.dashboard.words`), and only claimed effects are ever given a direction.
"""

from __future__ import annotations

from collections.abc import Callable

from ltm.dashboard.chapters import (
    abilities,
    answer,
    books,
    confirmed,
    dialogue,
    emergence,
    gaps,
    learning,
    library,
    lost,
    method,
    order,
    rounds,
    sets,
    time,
)
from ltm.dashboard.inputs import Inputs
from ltm.dashboard.layout import Chapter

BUILDERS: dict[str, Callable[[Inputs], Chapter]] = {
    "answer": answer.answer,
    "ideal": sets.ideal,
    "sets": sets.sets,
    "confirmed": confirmed.confirmed,
    "books": books.books,
    "features": books.features,
    "order": order.order,
    "gaps": gaps.gaps,
    "abilities": abilities.abilities,
    "emergence": emergence.emergence,
    "dialogue": dialogue.dialogue,
    "curves": learning.learning,
    "rounds": rounds.rounds,
    "time": time.time_chapter,
    "library": library.library,
    "lost": lost.lost,
    "method": method.method,
}
CHAPTERS = tuple(BUILDERS)
