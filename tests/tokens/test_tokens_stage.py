"""From real text to tokens and back: the stream of a variant is the text of its books, in its order."""

import dataclasses
import itertools
import json

import numpy as np
import pytest

from ltm.books.catalogue import TextStore, book_id
from ltm.progress import Progress
from ltm.records import Book, Variant
from ltm.sets.section import SetsSection
from ltm.sets.stage import build as build_sets
from ltm.sets.stage import read_variants
from ltm.store import WorkFolder, write_rows
from ltm.tokens import stage
from ltm.tokens.section import TokensSection
from ltm.tokens.stream import open_stream, read_shards
from ltm.tokens.tokenizer import BOS, identity, load

TITLES = ["Ruth", "Jonah", "Esther", "Nahum", "Joel", "Titus"]


@pytest.fixture(scope="module")
def study(tmp_path_factory, kjv_texts):
    work = WorkFolder(tmp_path_factory.mktemp("w"))
    books = []
    for rank, title in enumerate(TITLES):
        text = kjv_texts[title]
        TextStore(work).write(book_id(text), text)
        books.append(
            Book(book_id(text), title, "", None, "en", "", "", "", rank, "train", 1, len(text.encode()), [0, 500], {})
        )
    write_rows(work.path("books", "catalogue.parquet"), books, Book)
    settings = SetsSection(count=4, books_per_set=6, book_tokens=20_000, passage_tokens=64)
    build_sets(settings, work, 1, Progress(quiet=True))
    stage.build(TokensSection(vocab_size=600, sample_bytes=50_000), work, 1, Progress(quiet=True))
    return work, settings, {b.book_id: kjv_texts[b.title] for b in books}


def test_the_stream_is_the_text_of_the_books_in_order(study):
    work, settings, texts = study
    tokenizer, shards = load(work), read_shards(work)
    base = next(v for v in read_variants(work) if v.order == "random")
    whole = dataclasses.replace(base, book_ids=base.book_ids[:3])
    stream = open_stream(work, whole, settings, shards, tokenizer.bos_id, tokenizer.vocab_size)
    tokens = stream.read(0, len(stream))
    cuts = np.flatnonzero(tokens == tokenizer.bos_id)
    read = [tokenizer.decode(tokens[a + 1 : b].tolist()) for a, b in itertools.pairwise(cuts)]
    order = [next(i for i, text in texts.items() if text.startswith(piece[:40])) for piece in read]
    repeats = [order.index(i) for i in whole.book_ids]
    assert repeats == sorted(repeats)
    for place, book in zip(repeats, whole.book_ids, strict=True):
        assert read[place] == texts[book]  # a book below its quota is read whole, and then again


def test_the_tokenizer_is_a_hugging_face_file_and_loses_nothing(study):
    work, _, texts = study
    tokenizer = load(work)
    saved = json.loads(work.path("tokens", "tokenizer.json").read_text(encoding="utf-8"))
    assert saved["model"]["type"] == "BPE"
    assert tokenizer.vocab_size == 600
    assert saved["added_tokens"][0]["content"] == BOS
    for text in [*texts.values(), "Ёлка – 雪 🎄\r\n\x00"]:
        assert tokenizer.decode(tokenizer.encode(text)) == text
    spelled = tokenizer.encode(f"a {BOS} b")  # a hostile book must not be able to write start marks
    assert tokenizer.bos_id not in spelled
    assert tokenizer.decode(spelled) == f"a {BOS} b"


def test_training_the_tokenizer_twice_gives_the_same_file(study):
    work, *_ = study
    before = identity(work), work.path("tokens", "tokens.bin").read_bytes()
    stage.build(TokensSection(vocab_size=600, sample_bytes=50_000), work, 1, Progress(quiet=True))
    assert (identity(work), work.path("tokens", "tokens.bin").read_bytes()) == before


def test_shards_cover_the_token_file_without_a_hole(study):
    work, _, texts = study
    shards = sorted(read_shards(work).values(), key=lambda s: s.start)
    ends = [s.start + s.n_tokens for s in shards]
    assert [s.start for s in shards] == [0, *ends[:-1]]
    assert ends[-1] * 2 == work.path("tokens", "tokens.bin").stat().st_size
    assert {s.book_id for s in shards} == set(texts)
    assert all(s.chapter_starts[0] == 0 and len(s.chapter_starts) == 2 for s in shards)


def test_wide_vocabularies_get_wide_tokens():
    assert stage.token_dtype(65_536) == np.uint16
    assert stage.token_dtype(65_537) == np.uint32


def test_variants_cannot_name_books_that_are_not_there(study):
    work, settings, _ = study
    from ltm.errors import DataError

    stranger: Variant = dataclasses.replace(read_variants(work)[0], book_ids=["f" * 16])
    with pytest.raises(DataError, match="has no tokens"):
        open_stream(work, stranger, settings, read_shards(work), 0, 600)
