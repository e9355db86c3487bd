"""The stream equals the variant: order, gaps, budget; nothing hidden."""

import dataclasses
import itertools

import numpy as np
import pytest

from ltm.errors import DataError
from ltm.records import Shard, Variant
from ltm.sets.section import SetsSection
from ltm.tokens.stream import Stream, segments

BOS = 999_999
LENGTHS = [5000, 900, 3000, 120]
GAPS = ("scattered", "blocks", "chapters", "head", "truncated")


def variant(**changes):
    values = dict(
        variant_id="v", index=0, round="exploration", block=0, set_id=0, template="single", arm="base",
        book_ids=[f"{i:016x}" for i in range(len(LENGTHS))], order="random", gap_kind="none", density=1.0, spacing=1,
        stream_seed=7, init_seeds=[1],
    )  # fmt: skip
    return Variant(**{**values, **changes})


@pytest.fixture
def shards():
    starts = np.cumsum([0, *LENGTHS])
    return {f"{i:016x}": Shard(f"{i:016x}", int(starts[i]), n, list(range(0, n, 400))) for i, n in enumerate(LENGTHS)}


SETTINGS = SetsSection(books_per_set=4, book_tokens=1000, passage_tokens=50)


def read_all(v, shards, settings=SETTINGS):
    """Every token is its own place in the file, so that what was read tells where it came from."""
    index = segments(v, settings, shards)
    stream = Stream(np.arange(sum(LENGTHS), dtype=np.uint32), index, BOS)
    return stream.read(0, len(stream)), stream


def pieces(tokens):
    """Split a stream at its start marks."""
    cuts = np.flatnonzero(tokens == BOS)
    return [tokens[a + 1 : b] for a, b in zip(cuts, [*cuts[1:], len(tokens)], strict=True)]


def book_of(token):
    return int(np.searchsorted(np.cumsum(LENGTHS), token, side="right"))


def test_the_budget_is_exact_for_every_arm(shards):
    for changes in (
        {},
        {"order": "shuffled"},
        {"spacing": 2},
        *(
            {"gap_kind": k, "density": d}
            for k in ("scattered", "blocks", "chapters", "head", "truncated")
            for d in (0.75, 0.25)
        ),
    ):
        tokens, _ = read_all(variant(**changes), shards)
        assert len(tokens) == SETTINGS.run_tokens + 1


def test_books_come_one_after_another_in_the_variants_order(shards):
    v = variant(book_ids=[f"{i:016x}" for i in (2, 0, 3, 1)])
    tokens, _ = read_all(v, shards)
    order = [book_of(p[0]) for p in pieces(tokens)]
    assert [b for i, b in enumerate(order) if i == 0 or order[i - 1] != b][:4] == [2, 0, 3, 1]


def test_a_whole_book_is_one_contiguous_excerpt_of_its_quota(shards):
    tokens, _ = read_all(variant(), shards)
    first = pieces(tokens)[0]
    assert len(first) == SETTINGS.book_tokens
    assert (np.diff(first) == 1).all()


def test_a_short_book_is_repeated_to_its_quota(shards):
    tokens, _ = read_all(variant(book_ids=[f"{3:016x}"] * 4), shards)
    assert len(np.unique(tokens[tokens != BOS])) == 120
    assert len(pieces(tokens)[0]) == 120


@pytest.mark.parametrize("kind", GAPS)
@pytest.mark.parametrize("density", [0.75, 0.5, 0.25])
def test_gaps_keep_the_stated_share_and_the_control_keeps_as_much(shards, kind, density):
    v = variant(gap_kind=kind, density=density)
    tokens, _ = read_all(v, shards)
    full, _ = read_all(variant(), shards)
    for book in range(4):
        unique = {t for t in tokens if t != BOS and book_of(t) == book}
        whole = {t for t in full if t != BOS and book_of(t) == book}
        assert len(unique) == pytest.approx(density * len(whole), abs=1.5)
        assert unique <= whole
    holes = sum(int((np.diff(p) > 1).sum()) for p in pieces(tokens))
    assert (holes == 0) == (kind in ("head", "truncated"))
    control, _ = read_all(variant(gap_kind="truncated", density=density), shards)
    assert (tokens == BOS).sum() == (control == BOS).sum()


@pytest.mark.parametrize("density", [0.75, 0.5, 0.3])
def test_every_book_weighs_the_same_in_a_sparse_stream(shards, density):
    tokens, _ = read_all(variant(gap_kind="truncated", density=density), shards)
    read = [sum(1 for t in tokens if t != BOS and book_of(t) == book) for book in range(4)]
    assert max(read) - min(read) < 0.06 * SETTINGS.book_tokens  # start marks and the cut at the end


def test_kept_passages_stay_in_book_order(shards):
    tokens, _ = read_all(variant(gap_kind="scattered", density=0.5, book_ids=[f"{0:016x}"] * 4), shards)
    first_pass = tokens[tokens != BOS][: SETTINGS.book_tokens // 2]
    assert (np.diff(first_pass) > 0).all()


def test_shuffled_reads_the_same_tokens_in_mixed_passages(shards):
    plain, _ = read_all(variant(), shards)
    mixed, _ = read_all(variant(order="shuffled"), shards)
    assert len(set(mixed) ^ set(plain)) <= (mixed == BOS).sum()  # start marks push as many tokens over the budget
    books = [book_of(p[0]) for p in pieces(mixed)]
    changes = sum(a != b for a, b in itertools.pairwise(books))
    assert changes > 20
    assert max(len(p) for p in pieces(mixed)) < 8 * SETTINGS.passage_tokens


def test_reverse_reads_the_same_excerpts(shards):
    plain, _ = read_all(variant(), shards)
    back, _ = read_all(variant(book_ids=variant().book_ids[::-1], order="reverse"), shards)
    assert len(set(plain) ^ set(back)) <= (plain == BOS).sum()


def test_books_in_turns(shards):
    tokens, _ = read_all(variant(spacing=2, book_ids=[f"{i:016x}" for i in (0, 2, 1, 3)]), shards)
    books = [book_of(p[0]) for p in pieces(tokens)]
    assert books[:6] == [0, 2, 0, 2, 0, 2]


def test_reading_in_parts_equals_reading_at_once(shards):
    tokens, stream = read_all(variant(order="shuffled"), shards)
    parts = [stream.read(a, min(333, len(stream) - a)) for a in range(0, len(stream), 333)]
    assert (np.concatenate(parts) == tokens).all()
    with pytest.raises(DataError, match="stream has"):
        stream.read(len(stream) - 1, 2)


def test_the_seed_alone_decides(shards):
    v = variant(gap_kind="blocks", density=0.5)
    assert (segments(v, SETTINGS, shards) == segments(v, SETTINGS, shards)).all()
    other = segments(dataclasses.replace(v, stream_seed=8), SETTINGS, shards)
    assert not np.array_equal(segments(v, SETTINGS, shards), other)


def test_a_book_without_tokens_is_named(shards):
    del shards[f"{1:016x}"]
    with pytest.raises(DataError, match="0000000000000001 has no tokens"):
        segments(variant(), SETTINGS, shards)
