"""A stream is the text that its variant says: rebuilt here from the clean books, character by character, and compared.

The reference below is written token by token with lists, where the product works with an index of pieces; it shares
with it only the definition: which draws a variant's `stream_seed` makes, and in which order.
"""

import itertools
import math

import numpy as np
import pytest
import torch

from ltm.books.catalogue import TextStore, book_id
from ltm.model.sizes import ModelConfig
from ltm.progress import Progress
from ltm.records import Book, Variant
from ltm.runs.engine import Engine, EngineSettings
from ltm.runs.section import RunsSection
from ltm.runs.train import Trainer
from ltm.sets.order import Arranger
from ltm.sets.section import SetsSection
from ltm.sets.shelf import shelf_of
from ltm.store import WorkFolder, write_rows
from ltm.tokens import stage
from ltm.tokens.section import TokensSection
from ltm.tokens.stream import open_stream, read_shards
from ltm.tokens.tokenizer import load

TITLES = ["Ruth", "Jonah", "Esther", "Nahum", "Joel", "Titus"]  # of about 2,700 to 15,000 tokens
MARK = "\0"
SETTINGS = SetsSection(books_per_set=6, book_tokens=2500, epochs=2, passage_tokens=48)
ORDERS = (
    "random", "reverse", "shuffled", "readability_up", "readability_down", "chronological", "given", "genre_blocked",
    "genre_interleaved", "similarity_chain", "anti_chain", "in_turns", "repetition",
)  # fmt: skip
GAPS = ("scattered", "blocks", "chapters", "head", "truncated")
CASES = [
    *({"order": order} for order in ORDERS),
    *({"gap_kind": kind, "density": density} for kind in GAPS for density in (0.75, 0.25)),
    *({"gap_kind": kind, "density": 0.5, "order": "shuffled"} for kind in GAPS),
    {"spacing": 2},
    {"spacing": 4, "gap_kind": "scattered", "density": 0.6},
    *({"order": "repetition", "gap_kind": kind, "density": 0.4} for kind in ("scattered", "truncated")),
]


@pytest.fixture(scope="module")
def library(tmp_path_factory, kjv_texts):
    """A work folder with six real books in tokens, and the books."""
    work = WorkFolder(tmp_path_factory.mktemp("exact"))
    books = []
    for rank, title in enumerate(TITLES):
        text = kjv_texts[title].encode("ascii", "ignore").decode()  # so that a token is a slice of characters
        chapters = [0, *range(3000, len(text) - 1000, 3700)] if rank != 1 else [0]
        known = {"flesch": float((rank * 37) % 11)} if rank != 4 else {}
        year = None if rank == 2 else 1900 - 10 * rank
        TextStore(work).write(book_id(text), text)
        books.append(
            Book(
                book_id(text), title, "", year, "en", ("law", "tale", "")[rank % 3], "", "", (rank + 3) % 6, "train", 1,
                len(text), chapters, known,
            )
        )  # fmt: skip
    write_rows(work.path("books", "catalogue.parquet"), books, Book)
    write_rows(work.path("sets", "variants.parquet"), [variant(books)], Variant)
    stage.build(TokensSection(vocab_size=400, sample_bytes=30_000), work, 1, Progress(quiet=True))
    return work, books


def variant(books, **changes):
    values = dict(
        variant_id="v", index=0, round="exploration", block=0, set_id=0, template="single", arm="base", book_ids=[],
        order="random", gap_kind="none", density=1.0, spacing=1, stream_seed=11, init_seeds=[1],
    )  # fmt: skip
    values |= changes
    shelf = shelf_of(books)
    arranger = Arranger(shelf, turns=3)
    rows = arranger.arrange(values["order"], shelf.rows([books[i].book_id for i in (3, 0, 5, 1, 4, 2)]))
    values["spacing"] = arranger.spacing(values["order"], values["spacing"])
    return Variant(**{**values, "book_ids": shelf.ids(rows)})


def token_texts(work, book):
    """Every token of a book as the characters that it stands for, and the token at which each chapter begins."""
    text, tokenizer = TextStore(work).read(book), load(work)
    bounds = next(b for b in _catalogue(work) if b.book_id == book).chapter_starts
    pieces, chapters = [], []
    for a, b in itertools.pairwise([*bounds, len(text)]):
        chapters.append(len(pieces))
        offsets = tokenizer._backend.encode(text[a:b], add_special_tokens=False).offsets
        pieces += [text[a + first : a + last] for first, last in offsets]
    assert "".join(pieces) == text
    return pieces, chapters


def _catalogue(work):
    from ltm.books.catalogue import read_catalogue

    return read_catalogue(work)


def kept_offsets(v, settings, n_tokens, chapters, rng):
    """Which tokens of a book one epoch reads, in their order."""
    window = min(settings.book_tokens, n_tokens)
    start = int(rng.integers(0, n_tokens - window + 1))
    inside = list(range(start, start + window))
    count = max(1, round(window * v.density))
    if v.gap_kind == "head":
        kept = inside[:count]
    elif v.gap_kind == "truncated":
        skip = int(rng.integers(0, window - count + 1))
        kept = inside[skip : skip + count]
    elif v.gap_kind == "none":
        kept = inside
    else:
        units = _units(v.gap_kind, settings, inside, chapters)
        drawn = [offset for i in rng.permutation(len(units)) for offset in units[i]]
        kept = sorted(drawn[:count])
    quota = max(1, round(settings.book_tokens * v.density))
    return list(itertools.islice(itertools.cycle(kept), quota))


def _units(kind, settings, inside, chapters):
    size = max(1, len(inside) // 8)
    if kind == "chapters":
        starts = {c for c in chapters if inside[0] < c <= inside[-1]}
        if len(starts) >= 2:
            cut = [i for i, offset in enumerate(inside) if offset in starts]
            return [inside[a:b] for a, b in itertools.pairwise([0, *cut, len(inside)])]
        size = min(size, 2000)
    else:
        size = min(size, settings.passage_tokens * (8 if kind == "blocks" else 1))
    return [inside[a : a + size] for a in range(0, len(inside), size)]


def passages(offsets, size):
    """Runs of neighbouring tokens, cut into passages."""
    runs = []
    for offset in offsets:
        if runs and runs[-1][-1] + 1 == offset:
            runs[-1].append(offset)
        else:
            runs.append([offset])
    return [run[a : a + size] for run in runs for a in range(0, len(run), size)]


def reference(work, v, settings):
    """The stream of a variant as a list of texts, a start mark being MARK."""
    shown, books = [], []
    for book in v.book_ids:
        pieces, chapters = token_texts(work, book)
        rng = np.random.default_rng([v.stream_seed, int(book[:8], 16)])
        shown.append(pieces)
        books.append(kept_offsets(v, settings, len(pieces), chapters, rng))
    wanted = settings.run_tokens + 1
    total = sum(len(b) for b in books)
    if v.order == "repetition":
        return _coming_back(shown, books, wanted)[:wanted]
    rng = np.random.default_rng([v.stream_seed, 0x0DE5])
    out = []
    while len(out) < wanted:
        share = min(1.0, (wanted - len(out)) / total)
        epoch = [b[: math.ceil(share * len(b))] for b in books]
        last = None
        for place, offset in _in_order(v, settings, epoch, rng):
            if last is None or last[0] != place or offset <= last[1]:
                out.append(MARK)
            out.append(shown[place][offset])
            last = (place, offset)
    return out[:wanted]


def _coming_back(shown, books, wanted):
    """Walk through the places of the first reading; at each, books that were read 1, 3, 7, ... books ago come back."""
    total, whole = sum(len(b) for b in books), 0
    while (whole + 1) * (total + len(books)) <= wanted:
        whole += 1
    share = (wanted - whole * (total + len(books)) - len(books)) / total
    out = []
    for place in range(10_000):
        for reading in range(whole + 1):
            book = place - (2**reading - 1)
            if 0 <= book < len(books):
                offsets = books[book] if reading < whole else books[book][: math.ceil(share * len(books[book]))]
                last = -1
                for offset in offsets:
                    out += [MARK] if offset <= last or last < 0 else []
                    out.append(shown[book][offset])
                    last = offset
        if len(out) >= wanted:
            return out
    raise AssertionError("the reference never gets there")


def _in_order(v, settings, books, rng):
    cut = [[[(place, o) for o in p] for p in passages(b, settings.passage_tokens)] for place, b in enumerate(books)]
    if v.order == "shuffled":
        flat = [passage for book in cut for passage in book]
        return [token for i in rng.permutation(len(flat)) for token in flat[i]]
    turns = []
    for first in range(0, len(books), v.spacing):
        group = cut[first : first + v.spacing] if v.spacing > 1 else [cut[first]]
        turns += [p for turn in itertools.zip_longest(*group) for p in turn if p is not None]
    return [token for passage in turns for token in passage]


def read_texts(work, stream):
    """The whole stream, read in uneven bites, each token as its text."""
    tokenizer = load(work)
    shown = {i: tokenizer.decode([i]) for i in range(tokenizer.vocab_size)}
    shown[tokenizer.bos_id] = MARK
    bites = [stream.read(a, min(1777, len(stream) - a)) for a in range(0, len(stream), 1777)]
    return [shown[int(i)] for i in np.concatenate(bites)]


@pytest.mark.parametrize("changes", CASES, ids=lambda c: "-".join(str(v) for v in c.values()))
def test_a_stream_is_the_text_that_its_variant_says(library, changes):
    work, books = library
    v = variant(books, **changes)
    tokenizer = load(work)
    stream = open_stream(work, v, SETTINGS, read_shards(work), tokenizer.bos_id, tokenizer.vocab_size)
    assert len(stream) == SETTINGS.run_tokens + 1
    assert read_texts(work, stream) == reference(work, v, SETTINGS)


def test_books_below_their_quota_are_read_again_in_every_order(library):
    work, books = library
    settings = SetsSection(books_per_set=6, book_tokens=6000, passage_tokens=48)
    shards, tokenizer = read_shards(work), load(work)
    assert min(s.n_tokens for s in shards.values()) < 6000 < max(s.n_tokens for s in shards.values())
    for changes in ({}, {"order": "shuffled"}, {"spacing": 3}, {"gap_kind": "blocks", "density": 0.5}):
        v = variant(books, **changes)
        stream = open_stream(work, v, settings, shards, tokenizer.bos_id, tokenizer.vocab_size)
        assert read_texts(work, stream) == reference(work, v, settings)


def test_orders_differ_and_are_what_they_are_called(library):
    _, books = library
    ids = {order: variant(books, order=order).book_ids for order in ORDERS}
    assert ids["reverse"] == ids["random"][::-1]
    by_id = {b.book_id: b for b in books}
    years = [by_id[i].year for i in ids["chronological"]]
    assert years[:5] == sorted(y for y in years if y is not None)
    assert years[5] is None
    assert [by_id[i].rank for i in ids["given"]] == list(range(6))
    ease = [by_id[i].features.get("flesch") for i in ids["readability_up"]]
    assert ease[:5] == sorted((e for e in ease if e is not None), reverse=True)
    genres = [by_id[i].genre for i in ids["genre_blocked"]]
    assert [g for g, _ in itertools.groupby(genres)] in (["law", "tale", ""], ["tale", "law", ""])
    spread = [by_id[i].genre for i in ids["genre_interleaved"]]
    assert spread[:4] in (["law", "tale"] * 2, ["tale", "law"] * 2)
    plain = {"random", "shuffled", "in_turns", "repetition"}  # these name the books as `random` does
    assert {ids[order] == ids["random"] for order in plain} == {True}
    assert len({tuple(ids[order]) for order in ORDERS if order not in plain}) == len(ORDERS) - len(plain)


class Recorder(Engine):
    """An engine that keeps what it is asked to learn instead of learning it."""

    def gradients(self, tokens_BT, targets_BT, scale, documents_BT):
        self.seen.append((tokens_BT.clone(), targets_BT.clone(), documents_BT))
        return torch.zeros(()), tuple(torch.zeros_like(p) for p in self.weights.parameters)


@pytest.mark.parametrize("micro", [32, 64, 192])
def test_a_trainer_reads_every_token_once_in_order_and_aims_at_the_next(library, micro):
    work, books = library
    v = variant(books, gap_kind="scattered", density=0.5, spacing=2)
    settings = SetsSection(books_per_set=6, book_tokens=700, passage_tokens=48)
    tokenizer = load(work)
    stream = open_stream(work, v, settings, read_shards(work), tokenizer.bos_id, tokenizer.vocab_size)
    section = RunsSection(batch_tokens=192, micro_batch_tokens=micro, document_mask=True)
    config = ModelConfig("llama", 1, 1, 1, 8, 8, tokenizer.vocab_size, 32)
    engine = Recorder(EngineSettings(config, "cpu", torch.float32))
    engine.seen = []
    n_steps = settings.run_tokens // 192
    Trainer(section, engine, stream, n_steps, 1).run(lambda _: None)
    used = stream.read(0, n_steps * 192 + 1)
    assert len(engine.seen) == n_steps * 192 // micro
    assert np.array_equal(torch.cat([t.flatten() for t, _, _ in engine.seen]).numpy(), used[:-1])
    assert np.array_equal(torch.cat([t.flatten() for _, t, _ in engine.seen]).numpy(), used[1:])
    for tokens_BT, _, documents_BT in engine.seen:
        assert tokens_BT.shape == (micro // 32, 32)
        for row, documents in zip(tokens_BT.tolist(), documents_BT.tolist(), strict=True):
            marks = list(itertools.accumulate(int(token == tokenizer.bos_id) for token in row))
            assert documents == marks
