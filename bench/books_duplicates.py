"""How many planted copies are found, and how many books are called copies that are none.

    python bench/books_duplicates.py ../shared/books [--every 4]

Every book of the library goes into the judge (all of them are different works: each rejection is a false alarm, unless
it is printed and a person sees that it is right); then copies of every n-th book are made in eleven ways and judged.
"""

from __future__ import annotations

import argparse
import csv
import random
import re
import textwrap
import time
from collections import Counter
from pathlib import Path

from ltm.books.judge import Judge
from ltm.books.prepare import Prepared, Wanted, prepare
from ltm.books.readers import RawBook

ANY = Wanted(frozenset(), 0)
HEADER = "The Project Gutenberg EBook of X, by Y\n\n*** START OF THIS PROJECT GUTENBERG EBOOK X ***\n\n"
LICENCE = (
    "\n\nEnd of the Project Gutenberg EBook of X\n\n*** END OF THIS PROJECT GUTENBERG EBOOK X ***\n\nLicence.\n" * 3
)


def noise(text: str, share: float, rng: random.Random) -> str:
    """Return a text as a bad scan gives it: letters misread, spaces lost."""
    swaps = {
        "e": "c",
        "l": "1",
        "o": "0",
        "h": "b",
        "m": "rn",
        "n": "u",
        "а": "о",
        "и": "н",
        "е": "с",
        "ш": "щ",
        "п": "н",
    }
    return "".join(
        swaps.get(c, c if c != " " or rng.random() > 0.2 else "") if rng.random() < share else c for c in text
    )


def ways(text: str, other: str, third: str, rng: random.Random) -> dict[str, str]:
    """Return copies of a text by the name of what was done to it."""
    n = len(text)
    cut = rng.randrange(n // 10, n // 4)
    words = text.split(" ")
    return {
        "first 60 %": text[: int(0.6 * n)],
        "last 70 %": text[int(0.3 * n) :],
        "re-wrapped": "\n\n".join(textwrap.fill(p, 65) for p in text.split("\n\n")),
        "other marks": re.sub(r"[“”«»\"]", "'", text).replace("—", "--").replace("ё", "е"),
        "capitals": text.upper(),
        "scan, 1 % of letters": noise(text, 0.01, rng),
        "scan, 3 % of letters": noise(text, 0.03, rng),
        "with licence": f"{HEADER}{text}{LICENCE}",
        "other edition": f"PREFACE\n\n{other[cut : cut + n // 5]}\n\n{text}",
        "edited (3 % of words)": " ".join(w if rng.random() > 0.03 else "so" for w in words),
        "inside a collection": f"{other[: n // 2]}\n\n{text}\n\n{third[: n // 2]}",
    }


def main() -> None:
    """Print recall by kind and the false alarms."""
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("library", type=Path)
    options.add_argument("--every", type=int, default=4, help="copy every n-th book")
    given = options.parse_args()
    with open(given.library / "manifest.csv", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    texts = [(given.library / row["file"]).read_text(encoding="utf-8") for row in rows]
    books = [prepared(text, row["file"], row) for text, row in zip(texts, rows, strict=True)]
    judge = Judge(True)
    false = 0
    for book in books:
        for row in judge.consider(book):
            false += 1
            print(f"called a copy: {row.source[:60]}: {row.reason}")
    print(f"{len(books)} different books, {false} called copies")
    rng = random.Random(1)
    found, made, seconds = Counter[str](), Counter[str](), 0.0
    for place in range(0, len(books), given.every):
        others = [rng.randrange(len(books)) for _ in range(2)]
        for kind, copy in ways(books[place].text, books[others[0]].text, books[others[1]].text, rng).items():
            candidate = prepared(copy, f"copy {place}.txt", {})
            begin = time.process_time()
            matches = judge.finder.find(candidate.sketch)
            seconds += time.process_time() - begin
            made[kind] += 1
            found[kind] += any(
                match.owner in judge.kept and judge.kept[match.owner].book_id == books[place].book.book_id
                for match in matches
            )
    for kind in made:
        print(f"{kind:24s} {found[kind]:4d} of {made[kind]:4d}")
    print(f"recall {found.total() / made.total():.2%}, {1000 * seconds / made.total():.1f} ms a look-up")


def prepared(text: str, name: str, row: dict[str, str]) -> Prepared:
    """Return a text as the stage prepares it."""
    found = prepare(RawBook(text), name, row, ANY, 0)
    assert isinstance(found, Prepared)
    return found


if __name__ == "__main__":
    main()
