"""Terms of whole sets: how varied a set is, and which kinds of books help each other.

Interactions are looked for between classes of books (at most eight of them), and only where one of the two classes has
an effect that can be seen at all: a screened hierarchy. Pairs of books are looked at only among the eight strongest.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ltm.patterns import mixed
from ltm.patterns.describe import Described
from ltm.patterns.layout import Layout
from ltm.patterns.table import Floats
from ltm.records import Book

_SEEN = 1.0  # standard errors from which a class counts as one that does something
_BOOK_PAIRS_UP_TO = 8  # strongest books whose pairs are looked at
_BOOK_SEEN = 3.0
_TINY = 1e-9
DIVERSITY, LIKENESS = "set:diversity", "set:likeness"
WITH, TOGETHER = " x ", " together with "  # between the two of a combination: in its name, in its label


def class_shares(layout: Layout, known: Described) -> Floats:
    """Return the share of each class in each set, shape (S, C)."""
    n = len(known.class_names)
    member = (known.classes[:, None] == np.arange(n)[None, :]).astype(np.float64)
    held = layout.membership
    return np.asarray(np.asarray(held @ member) / np.asarray(held.sum(axis=1))[:, None])


def set_columns(layout: Layout, known: Described) -> tuple[list[str], list[str], Floats]:
    """Return (names, labels, columns (S, K) in standard deviations) of how varied a set is.

    `set:diversity` is the effective number of classes of books (the exponential of the entropy of their shares);
    `set:likeness` the mean of the products of the standardised features of all pairs of its books.
    """
    found: list[tuple[str, str, Floats]] = []
    if len(known.class_names) > 1:
        shares = class_shares(layout, known)
        entropy = -np.sum(shares * np.log(np.maximum(shares, 1e-12)), axis=1)
        found.append((DIVERSITY, "variety of the set's books", np.exp(entropy)))
    if len(known.names):
        held = layout.membership
        sums = np.asarray(held @ known.values)
        squares = np.asarray(held @ np.sum(known.values**2, axis=1))
        size = np.asarray(held.sum(axis=1))
        found.append((LIKENESS, "likeness of the set's books", (np.sum(sums**2, axis=1) - squares) / size**2))
    kept = [(n, label, (v - v.mean()) / v.std()) for n, label, v in found if v.std() > _TINY * max(1.0, abs(v.mean()))]
    if not kept:
        return [], [], np.zeros((len(layout.set_ids), 0))
    return [k[0] for k in kept], [k[1] for k in kept], np.column_stack([k[2] for k in kept])


def much_of(name: str, layout: Layout, known: Described) -> Floats:
    """Return how much of a feature each book has, shape (B,), in standard deviations.

    Of a term of whole sets: how much more of it the sets with the book have than those without.
    """
    if name in known.names:
        return np.asarray(known.values[:, known.names.index(name)])
    names, _, columns = set_columns(layout, known)
    with_book = np.asarray(layout.membership.T @ columns[:, names.index(name)])  # the columns have no mean
    holders = layout.holders
    return np.asarray(with_book / np.maximum(holders, 1) + with_book / np.maximum(len(columns) - holders, 1))


def interaction_columns(
    layout: Layout, known: Described, solved: mixed.Solved, books: Mapping[str, Book]
) -> tuple[list[str], list[str], Floats]:
    """Return (names, labels, columns (S, K) in standard deviations) of the interactions that are looked at."""
    names, labels, columns = _classes(layout, known, solved)
    more = _pairs(layout, solved, books)
    names, labels, columns = names + more[0], labels + more[1], columns + more[2]
    if not columns:
        return [], [], np.zeros((len(layout.set_ids), 0))
    return names, labels, np.column_stack(columns)


def _classes(layout: Layout, known: Described, solved: mixed.Solved) -> tuple[list[str], list[str], list[Floats]]:
    if len(known.class_names) < 2:
        return [], [], []
    shares = class_shares(layout, known)
    centred = shares - shares.mean(axis=0)
    root = solved.problem.root[:, None]
    information = np.sum(root * centred * solved.project(root * centred), axis=0)
    pull = (root * centred).T @ solved.residual
    z = pull / np.sqrt(np.maximum(information, 1e-12) * solved.seed_variance)
    main = np.column_stack([np.ones(len(centred)), centred])
    names, labels, columns = [], [], []
    for i in range(len(z)):
        for j in range(i + 1, len(z)):
            if max(abs(z[i]), abs(z[j])) < _SEEN or min(centred[:, i].std(), centred[:, j].std()) < _TINY:
                continue
            column = _beyond(centred[:, i] * centred[:, j], main)
            if column is not None:
                names.append(f"{known.class_names[i]}{WITH}{known.class_names[j]}")
                labels.append(f"{known.class_names[i]}{TOGETHER}{known.class_names[j]}")
                columns.append(column)
    return names, labels, columns


def _pairs(
    layout: Layout, solved: mixed.Solved, books: Mapping[str, Book]
) -> tuple[list[str], list[str], list[Floats]]:
    """Return the pairs of the few books that clearly do something by themselves."""
    held = layout.membership
    holders = layout.holders
    candidates = np.flatnonzero((holders >= 3) & (len(layout.set_ids) - holders >= 3))
    pull = np.asarray(held.T @ (solved.problem.root * solved.residual))[candidates]
    spread = holders[candidates] * (1.0 - holders[candidates] / len(layout.set_ids))
    noise = float(np.sqrt(np.mean(solved.residual**2))) * np.sqrt(np.maximum(spread, 1e-9))
    z = np.abs(pull) / noise
    strong = candidates[np.argsort(-z, kind="stable")[:_BOOK_PAIRS_UP_TO]][
        np.sort(-z)[:_BOOK_PAIRS_UP_TO] < -_BOOK_SEEN
    ]
    names, labels, columns = [], [], []
    for a in range(len(strong)):
        for b in range(a + 1, len(strong)):
            one, two = np.sort(strong[[a, b]])
            x, y = (np.asarray(held[:, [int(k)]].todense()).ravel() for k in (one, two))
            both = (x > 0) & (y > 0)
            if min(both.sum(), (~both).sum()) < 3:
                continue
            product = (x - x.mean()) * (y - y.mean())
            column = _beyond(product, np.column_stack([np.ones(len(x)), x, y]))
            if column is not None:
                column = column * float(np.std(_rest(product, np.column_stack([np.ones(len(x)), x, y]))))
                ids = (layout.book_ids[one], layout.book_ids[two])
                titles = [books[i].title if i in books else i for i in ids]
                names.append(f"{ids[0]}{WITH}{ids[1]}")
                labels.append(f"{titles[0]}{TOGETHER}{titles[1]}")
                columns.append(column)
    return names, labels, columns


def _beyond(product: Floats, main: Floats) -> Floats | None:
    """Return what a product says beyond its main effects, in standard deviations; None if nothing."""
    rest = _rest(product, main)
    spread = float(rest.std())
    return rest / spread if spread > 1e-6 * max(float(np.abs(product).max()), _TINY) else None


def _rest(product: Floats, main: Floats) -> Floats:
    return np.asarray(product - main @ np.linalg.lstsq(main, product, rcond=None)[0])
