"""Libraries with a planted truth, made of real books: damaged copies, twins, and a cipher with its glossary.

Reads: a folder of real books with its manifest (`manifest.csv`: file, language, title, author, words). Writes: text
files and a manifest of their own. No text of a book is kept in the project.
"""

from __future__ import annotations

import csv
import random
import string
from dataclasses import dataclass
from pathlib import Path

SHUFFLED, TWIN, REAL = "shuffled", "twin", "real"
N_REAL, N_SHUFFLED, N_TWINS, N_HELD_OUT = 60, 10, 6, 8
CIPHER, GLOSSARY = "The Cipher", "The Glossary"
_WORDS = 40_000  # of each book: more than any run reads
_LINE = 25
_TWIN_WORDS = 40  # that a twin begins later: the very same text would be one book


@dataclass(frozen=True)
class Source:
    """One real book."""

    path: Path
    title: str
    author: str

    def text(self, skip: int = 0) -> str:
        """Return the middle of the book, where the text is the author's own, without the first `skip` words."""
        text = self.path.read_text(encoding="utf-8")
        words = text.split(" ")
        start = max(0, (len(words) - _WORDS) // 2)
        return " ".join(words[start + skip : start + _WORDS])


def english_books(folder: Path, seed: int) -> list[Source]:
    """Return the long English books of a folder in random order, one of each author."""
    with open(folder / "manifest.csv", newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["language"] == "en" and int(row["words"]) > 25_000]
    random.Random(seed).shuffle(rows)
    seen: set[str] = set()
    found = []
    for row in rows:
        if row["author"] not in seen:
            seen.add(row["author"])
            found.append(Source(folder / row["file"], row["title"], row["author"]))
    return found


def write_books_library(source: Path, target: Path, seed: int) -> list[str]:
    """Write 60 real books, 10 of them once more with their words shuffled, 6 once more as they are, and 8 to hold out.

    Returns:
        The authors to hold out. Titles begin with `shuffled: ` and `twin: ` where a book is a copy.
    """
    books = english_books(source, seed)
    chosen, held_out = books[:N_REAL], books[N_REAL : N_REAL + N_HELD_OUT]
    rng = random.Random(seed)
    rows = [(b.title, b.author, b.text()) for b in chosen + held_out]
    rows += [
        (f"{SHUFFLED}: {b.title}", f"{b.author} ({SHUFFLED})", shuffled(b.text(), rng)) for b in chosen[:N_SHUFFLED]
    ]
    twins = chosen[N_SHUFFLED : N_SHUFFLED + N_TWINS]
    rows += [(f"{TWIN}: {b.title}", f"{b.author} ({TWIN})", b.text(skip=_TWIN_WORDS)) for b in twins]
    _write(target, rows)
    return [b.author for b in held_out]


def write_order_library(source: Path, target: Path, seed: int, n_others: int = 2) -> list[str]:
    """Write a text in a cipher, its glossary, some real books, and to hold out 3 texts in the cipher and 3 real books.

    Returns:
        The authors to hold out.
    """
    books = english_books(source, seed + 1)
    key = cipher_key(seed)
    train, real, secret = books[:n_others], books[2:5], books[5:9]
    rows = [(b.title, b.author, b.text()) for b in train + real]
    rows.append((CIPHER, "Planted", enciphered(secret[0].text(), key)))
    rows.append((GLOSSARY, "Planted too", glossary(secret[0].text(), key)))
    rows += [(f"held-out cipher {i}", f"Cipher {i}", enciphered(b.text(), key)) for i, b in enumerate(secret[1:])]
    _write(target, rows)
    return [b.author for b in real] + [f"Cipher {i}" for i in range(len(secret) - 1)]


def shuffled(text: str, rng: random.Random) -> str:
    """Return the same words in random order: a book that teaches no grammar."""
    words = text.split()
    rng.shuffle(words)
    return "\n\n".join(" ".join(words[i : i + _LINE]) for i in range(0, len(words), _LINE))


def cipher_key(seed: int) -> dict[int, str]:
    """Return a substitution of letters by letters, vowels by vowels so that it can still be spoken."""
    rng = random.Random(seed)
    key = {}
    for group in ("aeiou", "".join(c for c in string.ascii_lowercase if c not in "aeiou")):
        other = list(group)
        while any(a == b for a, b in zip(group, other, strict=True)):
            rng.shuffle(other)
        key |= {ord(a): b for a, b in zip(group, other, strict=True)}
        key |= {ord(a.upper()): b.upper() for a, b in zip(group, other, strict=True)}
    return key


def enciphered(text: str, key: dict[int, str]) -> str:
    """Return a text in the cipher."""
    return text.translate(key)


def glossary(text: str, key: dict[int, str]) -> str:
    """Return what the words of a text are called in the cipher, in sentences, each word as often as it is common."""
    words = [w for w in (word.strip(string.punctuation).lower() for word in text.split()) if w.isalpha()]
    rng = random.Random(0)
    rng.shuffle(words)
    lines = [f"The word {w} is called {enciphered(w, key)}." for w in words[:12_000]]
    return "\n\n".join(" ".join(lines[i : i + 5]) for i in range(0, len(lines), 5))


def _write(target: Path, rows: list[tuple[str, str, str]]) -> None:
    """Write the library once: a study notices files that are written anew."""
    done = target / "manifest.csv"
    if done.exists():
        return
    target.mkdir(parents=True, exist_ok=True)
    for number, (_, _, text) in enumerate(rows):
        (target / f"{number:03d}.txt").write_text(text, encoding="utf-8")
    with open(target / ".manifest.tmp", "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["file", "language", "title", "author"])
        table.writerows([f"{number:03d}.txt", "en", title, author] for number, (title, author, _) in enumerate(rows))
    (target / ".manifest.tmp").replace(done)
