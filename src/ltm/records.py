"""Every row that crosses a stage, and its Arrow schema.

A record is a frozen dataclass; its Parquet schema follows from its annotations, so that a file and the code that
reads it cannot drift apart. Stages exchange these rows through the work folder and nothing else.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ltm.errors import DataError

if typing.TYPE_CHECKING:
    import pyarrow as pa

ABILITIES = ("linking", "transfer", "synthesis")
FLUENCY = "fluency"  # held-out bits per byte, negated so that more is better; shown beside the abilities
POOLS = ("train", "eval_a", "eval_b")


@dataclass(frozen=True, slots=True)
class Book:
    """One work of the library. `books/catalogue.parquet`."""

    book_id: str  # first 16 hex digits of the SHA-256 of the clean text
    title: str
    author: str
    year: int | None
    language: str  # ISO 639-1
    genre: str
    source: str  # where it came from: a path relative to the library, or `kjv:Genesis`
    licence: str
    rank: int  # place in the library's own order (manifest, tradition or file name), from 0
    pool: str  # one of POOLS; only `train` books may enter a set
    n_words: int
    n_bytes: int  # UTF-8 bytes of the clean text
    chapter_starts: list[int]  # character offsets into the clean text, ascending, the first is 0
    features: dict[str, float] = field(default_factory=dict)
    unit: str = ""  # one in statistics: book_id of the first edition or translation; "" = the book itself
    scene_starts: list[int] = field(default_factory=list)  # character offsets, ascending; every chapter opens a scene
    removed: dict[str, int] = field(default_factory=dict)  # characters that each step of cleaning took away
    quality: float = 0.0  # computed score, 0 to 1 (see `ltm.books.quality`)
    rating: float | None = None  # the column that the study ranks by, where it names one


@dataclass(frozen=True, slots=True)
class Rejected:
    """One file or book that was left out. `books/rejected.parquet`."""

    source: str
    step: str  # read, clean, language, size, duplicate, rank
    reason: str  # in words that a person understands
    instead: str = ""  # of a duplicate: the source of the book that stays
    language: str = ""  # where it is known


@dataclass(frozen=True, slots=True)
class Variant:
    """One training set: which books, in which order, how sparse. `sets/variants.parquet`."""

    variant_id: str  # fingerprint of everything below that can change the token stream
    index: int  # place in the design, from 0
    round: str  # pilot, exploration, adaptive, confirmation
    block: int  # whole-plot: variants of one block share the init seeds and, but for the arm `filled`, the books
    set_id: int  # variants with the same books share it
    template: str  # single, seeds, order, gaps, pilot, proposed, random, finalist, control: what the block is for
    arm: str  # place inside the block: base, reverse, shuffled, gap, filled, truncated, ...
    book_ids: list[str]  # in training order
    order: str  # random, reverse, shuffled, ...
    gap_kind: str  # none, scattered, blocks, chapters, head, truncated
    density: float  # share of each book's quota that is kept, in (0, 1]
    spacing: int  # books read in turns; 1 = each book whole; 0 = spaced repetition
    stream_seed: int  # seed of everything random inside the stream (excerpts, gaps, shuffling)
    init_seeds: list[int]  # one run per seed
    drawn: bool = True  # False where it was chosen because of scores: it may enter no p-value
    law: str = "balanced"  # how the set was drawn: balanced, uniform, dirichlet 0.1, ..., proposed, finalist
    recipe: str = ""  # "" = the study's own settings, else the name of the overrides that it is trained with
    aside: bool = False  # trained with another recipe than the study goes on with: it enters no effect and no ranking


@dataclass(frozen=True, slots=True)
class Cluster:
    """The cluster of books of one kind that a book was drawn from. `sets/clusters.parquet`."""

    book_id: str
    cluster: int


@dataclass(frozen=True, slots=True)
class Shard:
    """Where one book lies in the token file. `tokens/shards.parquet`."""

    book_id: str
    start: int  # first token of the book in `tokens/tokens.bin`
    n_tokens: int
    chapter_starts: list[int]  # token offsets from `start`, ascending, the first is 0


@dataclass(frozen=True, slots=True)
class Item:
    """One question of the eval set. `evalset/bank_a.parquet`, `evalset/bank_b.parquet`.

    A cell is one (context, continuation) pair whose log-probability the model gives; `rule` says how the cells of an
    item make a margin (see `ltm.scores.measures`).
    """

    item_id: str
    bank: str  # a or b
    ability: str  # one of ABILITIES, or FLUENCY
    family: str  # L1, L2, ..., S1, F0
    language: str
    cluster: str  # book_id of the book that the item was cut from, or its template: the unit of its standard error
    rule: str  # choice, pair, contrast, gain, synergy, likelihood, bits_per_byte, adapt or generate
    contexts: list[str]
    continuations: list[str]  # as long as `contexts`
    gold: int  # index of the right cell where the rule has one, else 0; adapt: training cells; generate: least size
    control: str = ""  # "" a real item; shuffled, nouns: the same with its distant context damaged, for comparison only
    level: int = 0  # step of the family's ladder of difficulty, from 1; 0 = it has none
    tier: str = "full"  # fast: also in the small bank that checkpoints are scored on
    source: str = ""  # where a user's own item stands, as file:line; empty for built ones


@dataclass(frozen=True, slots=True)
class Run:
    """One variant x one seed x one model, trained once. `runs/<run_id>/run.json`."""

    run_id: str
    variant_id: str
    init_seed: int
    model: str
    n_params: int
    n_tokens: int
    n_steps: int
    seconds: float  # training time, start-up excluded
    tokens_per_second: float
    mfu: float  # share of the matmul rate that was measured in the same worker; 0 = not measured
    device: str
    dtype: str
    final_loss: float  # mean of the last twentieth of the curve, nats per token
    curve_tokens: list[int]
    curve_loss: list[float]  # nats per token, mean since the point before
    worker: str
    started_at: str  # ISO 8601, UTC
    finished_at: str
    versions: dict[str, str] = field(default_factory=dict)
    compiled: bool = False
    micro_batch_tokens: int = 0  # that fitted; 0 = not recorded
    recipe: str = ""  # fingerprint of what all runs of its study are made from: `runs/recipes/<recipe>.json`
    cuts: str = ""  # fingerprint of how its books were cut into tokens
    hardware: dict[str, str] = field(default_factory=dict)  # processor, cores, memory, system, card; not in the id
    weights_sha256: str = ""  # of all weights by name (`checkpoint.digest_of`); the file may be deleted afterwards


@dataclass(frozen=True, slots=True)
class Score:
    """The raw answer of one run to one cell of one item. `scores/<run_id>.parquet`."""

    run_id: str
    item_id: str
    cell: int
    logprob: float  # natural log, summed over the tokens of the continuation, float32 log-softmax
    n_bytes: int  # UTF-8 bytes of the continuation
    n_tokens: int  # tokens of the continuation
    n_context_tokens: int  # after truncation from the left to the block size


@dataclass(frozen=True, slots=True)
class Measure:
    """One item family of one run, condensed. `scores/measures.parquet`."""

    run_id: str
    ability: str
    family: str
    value: float  # mean of `metric` over items (polarity: more is better); F0: minus bits per byte
    accuracy: float  # share of items answered right, ties count one half; NaN where the rule has none
    half_1: float  # the same value over a fixed random half of the eval books ...
    half_2: float  # ... and over the other half
    n_items: int
    metric: str = "margin"  # what `value` is the mean of: margin, logit or accuracy
    margin: float = math.nan  # per byte, pulled in
    logit: float = math.nan  # of the share of the right option, limited to +-4; NaN where the rule has none
    accuracy_normed: float = math.nan  # by log-probability per byte, where that differs from `accuracy`
    gold_bits_per_byte: float = math.nan  # of the right continuations after their contexts


@dataclass(frozen=True, slots=True)
class Reliability:
    """How well one item family (or `*`: the whole ability) can be measured. `scores/reliability.parquet`."""

    ability: str
    family: str
    n_runs: int
    n_items: int
    mean: float
    chance: float  # measured on untrained models
    z_over_chance: float
    accuracy: float
    split_half: float  # Spearman-Brown
    icc: float  # share of the between-run variance that is the set, not the seed
    icc_low: float  # 90 % interval
    icc_high: float
    seed_sd: float
    admitted: bool
    reason: str  # why it was not admitted, empty otherwise
    metric: str = "margin"  # what the figures above are about
    unigram: float = math.nan  # accuracy of a model that knows words and no order (value, where there is no accuracy)
    ngram: float = math.nan  # the same of a 5-gram model of the same tokens
    ending: float = math.nan  # the same of trained models that see the options without their context
    z_over_ngram: float = math.nan  # how clearly the runs are better than the 5-gram models
    snr: float = math.nan  # largest difference between sets over the seed's standard deviation
    detectable: float = math.nan  # least difference of two sets of four runs each that is found with 80 % power
    decision_accuracy: float = math.nan  # share of pairs of sets that two seeds put in the same order
    item_sd: float = math.nan  # standard error of a run's value that comes from which items were drawn
    alpha: float = math.nan  # of an ability: agreement of its families (Cronbach)
    reasons: dict[str, float] = field(default_factory=dict)  # what keeps it out: code -> measured (NaN: could not be)
    needed: dict[str, float] = field(default_factory=dict)  # the same codes -> what the gate asks for


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One item family of one run at one moment of its training, on the fast items. `scores/snapshots.parquet`."""

    run_id: str
    tokens: int  # trained so far
    ability: str
    family: str
    value: float  # mean margin; F0: minus bits per byte
    accuracy: float  # NaN where the rule has none


@dataclass(frozen=True, slots=True)
class Effect:
    """How much one thing changes one ability. `patterns/effects.parquet`."""

    kind: str  # book, feature, order, gap or interaction
    name: str  # book_id or term
    label: str  # as people read it
    ability: str
    estimate: float  # in seed standard deviations; positive = raises the ability
    se: float
    low: float  # 90 % interval
    high: float
    p: float  # randomisation p-value from the stored design
    q: float  # false discovery rate, families of tests combined in two stages
    shrunk: float  # posterior mean (BLUP), for ranking
    n: int  # units compared (sets or blocks)
    claimed: bool  # admitted ability and q at most the study's level
    lfsr: float = math.nan  # local false sign rate: chance that the sign is another one, or none
    adjusted: float = math.nan  # the estimate with likeness to the eval books as a covariate; NaN = not known
    survives: int = 0  # refits that keep the sign and half of the size
    refits: int = 0  # refits that could be made


@dataclass(frozen=True, slots=True)
class Ranked:
    """One variant in the ranking. `patterns/ranking.parquet`."""

    place: int  # 1 = best
    run_id: str
    variant_id: str
    posterior: float  # mean over admitted abilities, seed standard deviations above the average variant
    low: float  # 90 % interval
    high: float
    raw: float  # the same before shrinkage
    tied_with_best: bool  # cannot be told from the best, all variants compared at once
    abilities: dict[str, float]  # posterior by ability


@dataclass(frozen=True, slots=True)
class Tuned:
    """One model that got a dialogue layer. `dialogue/tuned.parquet`."""

    run_id: str
    place: int  # in the ranking
    method: str  # full or lora
    n_train: int  # conversations
    n_held_out: int
    n_steps: int
    loss: float  # mean of the last tenth of the steps, nats per token of the answers
    held_out_before: float  # bits per byte of answers in conversations of other books
    held_out_after: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Gain:
    """What the dialogue layer gained or cost one model in one item family. `dialogue/gains.parquet`."""

    run_id: str
    ability: str
    family: str
    before: float  # mean margin per byte; F0: minus bits per byte
    after: float
    change: float  # in seed standard deviations of the family; NaN where these are unknown
    accuracy_before: float  # NaN where the rule has none
    accuracy_after: float


Row = TypeVar("Row")


def schema(cls: type[Any]) -> pa.Schema:
    """Return the Arrow schema of a record class."""
    import pyarrow as pa

    hints = typing.get_type_hints(cls)
    return pa.schema([_arrow_field(f.name, hints[f.name]) for f in dataclasses.fields(cls)])


def to_table(rows: Iterable[Row], cls: type[Row]) -> pa.Table:
    """Return rows as an Arrow table with the schema of `cls`; no rows give an empty table."""
    import pyarrow as pa

    names = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
    row_list = list(rows)
    target = schema(cls)
    columns = []
    for name, arrow_field in zip(names, target, strict=True):
        values = [getattr(row, name) for row in row_list]
        if pa.types.is_map(arrow_field.type):
            values = [sorted(value.items()) for value in values]
        columns.append(pa.array(values, type=arrow_field.type))
    return pa.Table.from_arrays(columns, schema=target)


def from_table(table: pa.Table, cls: type[Row]) -> list[Row]:
    """Return the rows of an Arrow table as records.

    Raises:
        DataError: a column is missing.
    """
    import pyarrow as pa

    missing = [name for name in schema(cls).names if name not in table.column_names]
    if missing:
        raise DataError(f"{cls.__name__} table lacks columns: {', '.join(missing)}", "rebuild the stage that wrote it")
    columns: dict[str, Sequence[Any]] = {}
    for arrow_field in schema(cls):
        values = table.column(arrow_field.name).to_pylist()
        columns[arrow_field.name] = [dict(v) for v in values] if pa.types.is_map(arrow_field.type) else values
    names = list(columns)
    return [cls(**dict(zip(names, row, strict=True))) for row in zip(*columns.values(), strict=True)]


def _arrow_field(name: str, annotation: Any) -> pa.Field:
    import pyarrow as pa

    if isinstance(annotation, types.UnionType):
        inner = [a for a in typing.get_args(annotation) if a is not type(None)]
        return pa.field(name, _arrow_type(inner[0]), nullable=True)
    return pa.field(name, _arrow_type(annotation), nullable=False)


def _arrow_type(annotation: Any) -> pa.DataType:
    import pyarrow as pa

    plain: dict[Any, pa.DataType] = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    if annotation in plain:
        return plain[annotation]
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is list:
        return pa.list_(_arrow_type(args[0]))
    if origin is dict:
        return pa.map_(_arrow_type(args[0]), _arrow_type(args[1]))
    raise DataError(f"no Arrow type for {annotation!r}")
