"""Make a bank: spread every family evenly over its books or templates, leave out what cannot be used, and count.

A bank is reproducible from the library, the eval file and a seed: each family, step and source has its own random
stream, so that a family's items do not change when another family is added.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import PurePath

import numpy as np

from ltm.evalset import analogy, controls, deduction, fewshot, linking, roles, synthesis, transfer
from ltm.evalset.decontaminate import Overlap
from ltm.evalset.evalfile import EvalFile, Family
from ltm.evalset.material import Material
from ltm.evalset.own import OwnDraft
from ltm.evalset.passages import Draft, EvalBook, Sizes
from ltm.records import Item
from ltm.store import fingerprint

FAST = "fast"
_MAX_DROPPED_IN_A_ROW = 400  # of one source, before it counts as used up
_TEMPLATES = ("frames", "short_answer", "demonstrations", "rule_system")  # told from templates alone

FromBook = Callable[[EvalBook, Family, Sizes, np.random.Generator], Iterator[Draft]]
_FROM_BOOK: dict[str, FromBook] = {
    "scene_order": linking.scene_order,
    "suffix": linking.suffix,
    "chapter_suffix": linking.chapter_suffix,
    "name_recall": linking.name_recall,
    "coherence": linking.coherence,
    "passage": synthesis.passage,
}


@dataclass
class Tally:
    """What became of one family of one bank."""

    wanted: int
    built: int = 0
    controls: int = 0
    fast: int = 0
    shared: int = 0  # own items that share 13 words in a row with a training book; they are kept, and counted
    dropped: Counter[str] = field(default_factory=Counter)
    clusters: int = 0
    levels: Counter[int] = field(default_factory=Counter)


@dataclass(frozen=True)
class Workshop:
    """All that items of one bank are made from."""

    bank: str
    file: EvalFile
    books: Sequence[EvalBook]
    overlap: Overlap
    languages: Sequence[str]
    seed: int
    context_words: int
    counts: Mapping[str, int]  # items by family
    materials: Mapping[str, Material]

    @classmethod
    def of(
        cls,
        bank: str,
        file: EvalFile,
        books: Sequence[EvalBook],
        overlap: Overlap,
        languages: Sequence[str],
        seed: int,
        context_words: int,
        counts: Mapping[str, int],
    ) -> Workshop:
        """Gather what a bank is made from.

        Args:
            bank: a or b.
            file: Families and language material.
            books: Held-out books of this bank's pool.
            overlap: What training books contain.
            languages: Languages of the training books, for the families that are told from templates.
            seed: The same seed gives the same items.
            context_words: Words of an item of full length.
            counts: Items by family, 0 for a family that is off.
        """
        codes = {*languages, *(book.book.language for book in books)}
        materials = {code: Material(file.language(code), overlap.words, bank) for code in sorted(codes)}
        return cls(bank, file, books, overlap, languages, seed, context_words, counts, materials)

    def sizes(self, family: Family, language: str) -> Sizes:
        """Return the sizes of a family in a language, scaled to the study."""
        return Sizes.of(family, self.file.language(language), self.context_words / self.file.item_words)

    def stream(self, *names: str) -> np.random.Generator:
        """Return the random stream of a thing with a name."""
        return stream(self.seed, self.bank, *names)


def build_bank(shop: Workshop, own: Sequence[OwnDraft]) -> tuple[list[Item], dict[str, Tally]]:
    """Return the items of one bank and the tally by family; own items come last."""
    items: list[Item] = []
    tallies: dict[str, Tally] = {}
    for family in shop.file.families:
        if shop.counts.get(family.name):
            built, tallies[family.name] = _family(shop, family)
            items += built
    own_items, own_tallies = _own(shop, own)
    items += own_items
    tallies.update(own_tallies)
    return _with_fast(items, tallies, shop.file.fast_items), tallies


def spread(sources: list[Iterator[Draft]], n: int, tally: Tally, overlap: Overlap, seen: set[str]) -> list[Draft]:
    """Take `n` drafts from the sources in turns, or fewer where all sources are used up."""
    chosen: list[Draft] = []
    alive = list(sources)
    while alive and len(chosen) < n:
        for source in list(alive):
            if len(chosen) == n:
                break
            draft = _next_usable(source, seen, tally, overlap)
            if draft is None:
                alive.remove(source)
            else:
                chosen.append(draft)
    return chosen


def stream(seed: int, *names: str) -> np.random.Generator:
    """Return the random stream of a thing with a name."""
    return np.random.default_rng(int(fingerprint([seed, *names]), 16))


def _family(shop: Workshop, family: Family) -> tuple[list[Item], Tally]:
    tally = Tally(shop.counts[family.name])
    steps = family.steps()
    seen: set[str] = set()
    by_step: list[list[Item]] = []
    drafts: dict[str, Draft] = {}
    for place, (level, step) in enumerate(steps):
        n = (tally.wanted * (place + 1)) // len(steps) - (tally.wanted * place) // len(steps)
        found = spread(_sources(shop, step, level), n, tally, shop.overlap, seen)
        made = [_item(draft, family, shop.bank, draft.level or level) for draft in found]
        drafts.update(zip((item.item_id for item in made), found, strict=True))
        by_step.append(made)
    items = [item for made in by_step for item in made]
    tally.built, tally.clusters = len(items), len({item.cluster for item in items})
    tally.levels = Counter(item.level for item in items)
    n_controls = round(family.controls * tally.built / max(1, family.items))
    damaged = _controls(shop, family, [(item, drafts[item.item_id]) for item in in_turns(by_step)], n_controls)
    tally.controls = len(damaged)
    return items + damaged, tally


def _controls(shop: Workshop, family: Family, items: Sequence[tuple[Item, Draft]], n: int) -> list[Item]:
    """Return the first `n` items once more for each kind of damage."""
    found = []
    for kind in controls.KINDS if n else ():
        rng = shop.stream(family.name, "control", kind)
        built = 0
        for item, draft in items:
            if built == n:
                break
            worse = controls.damaged(draft, kind, shop.file.language(item.language), rng)
            if worse is not None:
                found.append(
                    dataclasses.replace(item, item_id=f"{item.item_id}-{kind}", contexts=worse.contexts, control=kind)
                )
                built += 1
    return found


def in_turns(groups: Sequence[Sequence[Item]]) -> Iterator[Item]:
    """Yield the first of every group, then the second, and so on."""
    for place in range(max((len(group) for group in groups), default=0)):
        yield from (group[place] for group in groups if place < len(group))


def _sources(shop: Workshop, family: Family, level: int) -> list[Iterator[Draft]]:
    if family.builder in _TEMPLATES:
        return _template_sources(shop, family, level)
    return [_book_source(shop, family, book, level) for book in shop.books]


def _book_source(shop: Workshop, family: Family, book: EvalBook, level: int) -> Iterator[Draft]:
    code = book.book.language
    sizes, language = shop.sizes(family, code), shop.file.language(code)
    rng = shop.stream(family.name, str(level), book.book.book_id)
    if family.builder == "two_streams":
        return synthesis.two_streams(book, shop.books, family, sizes, rng)
    if family.builder == "deduction":
        frames = [frame for frame in family.frames.get(code, []) if shop.materials[code].usable(frame)]
        return deduction.deductions(book, shop.books, frames, shop.materials[code], sizes, rng)
    if family.builder == "roles":
        counts = shop.overlap.word_counts.get(code, Counter())
        return roles.roles(book, shop.books, language, counts, sizes, rng)
    if family.builder == "analogy":
        return analogy.analogies(book, shop.books, family.lines.get(code, []), language, sizes, rng)
    return _FROM_BOOK[family.builder](book, family, sizes, rng)


def _template_sources(shop: Workshop, family: Family, level: int) -> list[Iterator[Draft]]:
    by_language = []
    for code in shop.languages:
        material, sizes = shop.materials[code], shop.sizes(family, code)
        sources = [
            told(cluster := f"{family.name}:{code}:{name}", shop.stream(family.name, str(level), cluster))
            for name, told in _tellers(family, material, code, sizes)
        ]
        if sources:
            by_language.append(_endless_turns(sources))
    return by_language


Teller = Callable[[str, np.random.Generator], Iterator[Draft]]


def _tellers(family: Family, material: Material, code: str, sizes: Sizes) -> Iterator[tuple[str, Teller]]:
    """Yield the templates of a family that the material allows, as name and what makes their items."""
    if family.builder == "demonstrations":
        for shown in family.demonstrations.get(code, []):
            yield shown.name, partial(_call, fewshot.demonstrations, shown, material, code, sizes)
    elif family.builder == "rule_system":
        for place, line in enumerate(family.lines.get(code, [])):
            yield str(place), partial(_call, fewshot.rule_systems, line, material, code, sizes)
    else:
        told = transfer.short_answers if family.builder == "short_answer" else transfer.contrasts
        for frame in family.frames.get(code, []):
            if material.usable(frame):
                yield frame.name, partial(_call, told, frame, material, code, sizes)


def _call(
    told: Callable[..., Iterator[Draft]],
    template: object,
    material: Material,
    code: str,
    sizes: Sizes,
    cluster: str,
    rng: np.random.Generator,
) -> Iterator[Draft]:
    return told(template, material, code, cluster, sizes, rng)


def _endless_turns(sources: list[Iterator[Draft]]) -> Iterator[Draft]:
    """Yield from endless sources in turns, so that languages share evenly however many templates each has."""
    while True:
        for source in sources:
            yield next(source)


def _next_usable(source: Iterator[Draft], seen: set[str], tally: Tally, overlap: Overlap) -> Draft | None:
    for draft in islice(source, _MAX_DROPPED_IN_A_ROW):
        reason = _unusable(draft, seen, overlap)
        if reason is None:
            seen.add(_identity(draft))
            return draft
        tally.dropped[reason] += 1
    return None


def _unusable(draft: Draft, seen: set[str], overlap: Overlap) -> str | None:
    if _identity(draft) in seen:
        return "the same item twice"
    cells = list(zip(draft.contexts, draft.continuations, strict=True))
    if len(set(cells)) < len(cells):
        return "two options are the same text"
    if overlap.contains(sorted(set(draft.contexts) | set(draft.continuations))):
        return "13 words in a row also stand in a training book"
    return None


def _identity(draft: Draft) -> str:
    return fingerprint([draft.contexts, draft.continuations])


def _item(draft: Draft, family: Family, bank: str, level: int) -> Item:
    content = [family.rule, draft.contexts, draft.continuations, draft.gold]
    return Item(
        item_id=f"{family.name}-{bank}-{fingerprint(content, 12)}",
        bank=bank,
        ability=family.ability,
        family=family.name,
        language=draft.language,
        cluster=draft.cluster,
        rule=family.rule,
        contexts=draft.contexts,
        continuations=draft.continuations,
        gold=family.min_parameters if family.rule == "generate" else draft.gold,
        level=level,
    )


def _own(shop: Workshop, own: Sequence[OwnDraft]) -> tuple[list[Item], dict[str, Tally]]:
    """Return the user's items of this bank; where a set is split, half of its clusters."""
    items: list[Item] = []
    tallies: dict[str, Tally] = {}
    halves = _halves(own)
    for draft in own:
        if draft.bank == "split" and (draft.cluster in halves[draft.family]) != (shop.bank == "a"):
            continue
        tally = tallies.setdefault(draft.family, Tally(0))
        content = [draft.rule, draft.contexts, draft.continuations, draft.gold, draft.name]
        items.append(
            Item(
                f"{draft.family}-{shop.bank}-{fingerprint(content, 12)}", shop.bank, draft.ability, draft.family,
                draft.language, draft.cluster, draft.rule, draft.contexts, draft.continuations, draft.gold,
                level=draft.level, source=_without_folder(draft.source),
            )
        )  # fmt: skip
        tally.wanted += 1
        tally.built += 1
        tally.levels[draft.level] += 1
        tally.shared += shop.overlap.contains(sorted({*draft.contexts, *draft.continuations}))
    for family, tally in tallies.items():
        tally.clusters = len({item.cluster for item in items if item.family == family})
    return items, tallies


def _without_folder(source: str) -> str:
    """Return a place without the folder of this machine: a bank is the same bytes wherever its eval file lies."""
    return PurePath(source).name if PurePath(source).is_absolute() else source


def _halves(own: Sequence[OwnDraft]) -> dict[str, Collection[str]]:
    """Return, for each set, the clusters of bank A: every second one in the order of their hashes."""
    clusters: dict[str, set[str]] = {}
    for draft in own:
        clusters.setdefault(draft.family, set()).add(draft.cluster)
    return {
        family: set(sorted(names, key=lambda name: fingerprint([family, name]))[::2])
        for family, names in clusters.items()
    }


def _with_fast(items: list[Item], tallies: Mapping[str, Tally], n_fast: int) -> list[Item]:
    """Mark the items that checkpoints are scored on: of every family and level its share, books in turns."""
    real = [item for item in items if not item.control and item.rule not in ("adapt", "generate")]
    groups: dict[tuple[str, int], list[str]] = {}
    for item in real:
        groups.setdefault((item.family, item.level), []).append(item.item_id)
    share = min(1.0, n_fast / max(1, len(real)))
    fast: set[str] = set()
    exact = 0.0
    for (family, _), ids in groups.items():
        before, exact = round(exact), exact + share * len(ids)
        chosen = ids[: round(exact) - before]
        tallies[family].fast += len(chosen)
        fast.update(chosen)
    return [dataclasses.replace(item, tier=FAST) if item.item_id in fast else item for item in items]
