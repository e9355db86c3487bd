"""Whether shape, batch, set and vocabulary go together: what could not be trained, or hardly be meant."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ltm.model.sizes import ModelConfig
from ltm.runs.micro_batch import nearest_micro
from ltm.runs.queue import Recipe
from ltm.study.notes import Notes
from ltm.study.settings import StudySettings

_FEWEST_STEPS, _FEW_STEPS = 10, 20
_FEWEST_BYTES_PER_TOKEN = 3.0  # of English at vocabularies of 2,000 or more; 2.6 at 1,000
_BYTES_PER_WORD = 6
# A byte-level BPE ran out of pairs at 21-27 x sqrt(bytes) entries in English books, 27-39 in Russian ones, 11-16 in the
# King James Bible (samples of 20 kB to 4 MB).
_MERGES_PER_ROOT_BYTE = 40
_BLOCK_KEYS = ("model.block_size", "model.size")
_SET_KEYS = ("sets.books_per_set", "sets.book_tokens")


def check_training(settings: StudySettings, notes: Notes, files: Mapping[str, int] | None) -> None:
    """Note everything about the training that does not depend on the machine.

    Args:
        settings: The study.
        notes: Takes the findings.
        files: Bytes of each file of the library, where known.
    """
    shape = settings.model.shape(settings.tokens.vocab_size)
    _check_batches(settings, shape.block_size, notes)
    _check_block(settings, shape.block_size, notes, files)
    if settings.model.base is None:
        _check_window(settings, shape, notes)
    _check_vocabulary(settings, notes, files)
    sets = settings.sets
    if sets.passage_tokens > sets.book_tokens:
        notes.problem("sets.passage_tokens", f"is {sets.passage_tokens}, above sets.book_tokens {sets.book_tokens}")
    if sets.spacing > sets.books_per_set:
        notes.problem("sets.spacing", f"is {sets.spacing}, above sets.books_per_set {sets.books_per_set}")


def _check_batches(settings: StudySettings, block_size: int, notes: Notes) -> None:
    runs, sets = settings.runs, settings.sets
    batch, micro, run_tokens = runs.batch_tokens, runs.micro_batch_tokens, sets.run_tokens
    set_tokens = sets.books_per_set * sets.book_tokens
    whole = max(1, round(batch / block_size)) * block_size
    if batch % block_size and block_size <= set_tokens:
        text = f"is {batch}, not a multiple of the block size {block_size}; nearest: {whole}"
        notes.problem("runs.batch_tokens", text, *_BLOCK_KEYS)
    if micro and micro % block_size:
        text = f"is {micro}, not a multiple of the block size {block_size}"
        text += f"; nearest: {nearest_micro(micro, whole, block_size)}"
        notes.problem("runs.micro_batch_tokens", text, *_BLOCK_KEYS)
    n_steps = Recipe(sets, settings.model, runs).n_steps()
    largest = min(run_tokens // _FEWEST_STEPS, set_tokens) // block_size * block_size
    if n_steps < _FEWEST_STEPS:
        text = f"leaves {n_steps} steps for {run_tokens} tokens a run; at least {_FEWEST_STEPS}"
        if largest:
            text += f"; nearest: {largest}"
        else:
            book_tokens = math.ceil(_FEWEST_STEPS * block_size / (sets.books_per_set * sets.epochs))
            text += f": raise sets.book_tokens to {book_tokens}"
        notes.problem("runs.batch_tokens", text, "sets", *_BLOCK_KEYS)
    elif batch > set_tokens:
        text = f"is {batch}, more than the {set_tokens} tokens of a whole set, so every step would read it all"
        notes.problem("runs.batch_tokens", f"{text}; nearest: {largest}", *_SET_KEYS, *_BLOCK_KEYS)
    elif n_steps < _FEW_STEPS:
        text = f"leaves only {n_steps} steps for {run_tokens} tokens a run; {_FEW_STEPS} or more tell sets apart better"
        nearest = run_tokens // _FEW_STEPS // block_size * block_size
        text += f"; nearest: {nearest}" if nearest else ""
        notes.warning("runs.batch_tokens", text, "sets", *_BLOCK_KEYS)


def _check_block(settings: StudySettings, block_size: int, notes: Notes, files: Mapping[str, int] | None) -> None:
    """Complain of sequences longer than a set, and warn of those longer than what one book gives."""
    sets = settings.sets
    set_tokens = sets.books_per_set * sets.book_tokens
    if block_size > set_tokens:
        text = f"is {block_size}, longer than a whole set of {set_tokens} tokens; nearest: "
        text += str(_round_down(max(1, min(set_tokens, sets.run_tokens // _FEWEST_STEPS))))
        notes.problem("model.block_size", text, "model.size", *_SET_KEYS)
        return
    if block_size > sets.book_tokens:
        text = f"is {block_size}, longer than the {sets.book_tokens} tokens that each book gives, so that every "
        text += f"sequence holds several books; nearest: {_round_down(sets.book_tokens)}"
        notes.warning("model.block_size", text, "model.size", "sets.book_tokens")
        return
    least = _BYTES_PER_WORD * settings.books.min_words  # smaller files are rejected anyway
    short = {name: size for name, size in (files or {}).items() if least <= size < block_size * _FEWEST_BYTES_PER_TOKEN}
    if short:
        name = min(short, key=lambda name: (short[name], name))
        tokens = round(short[name] / _FEWEST_BYTES_PER_TOKEN)
        text = (
            f"is {block_size}, longer than {len(short)} of the {len(files or {})} files of the library: the smallest, "
        )
        text += f"{name}, has about {tokens} tokens and is repeated inside one sequence"
        notes.warning("model.block_size", f"{text}; nearest: {_round_down(max(1, tokens))}", "model.size", "books")


def _check_window(settings: StudySettings, shape: ModelConfig, notes: Notes) -> None:
    family, window, block_size = shape.family, shape.window, shape.block_size
    if window and family != "mistral" and settings.model.window:
        text = f"is {window}, but {family} has no sliding window; nearest: set model.family to mistral"
        notes.problem("model.window", text, *_BLOCK_KEYS, "model.family")
    elif window and family != "mistral":
        text = f"is {family}, but the size `{settings.model.size}` has a sliding window; nearest: mistral, "
        notes.problem("model.family", text + f"or a model.size of {family}", "model.size", "model.window")
    elif family == "mistral" and not window:
        text = f"is mistral, but no window is set: it attends to all; nearest: set model.window to {block_size // 2}"
        notes.warning("model.family", text, *_BLOCK_KEYS)
    elif window >= block_size:
        text = f"is {window}, not below the block size {block_size}: nothing is ever outside it; nearest: "
        notes.warning("model.window", text + str(max(1, block_size // 2)), *_BLOCK_KEYS)


def _check_vocabulary(settings: StudySettings, notes: Notes, files: Mapping[str, int] | None) -> None:
    """Warn when the tokenizer will run out of pairs before the vocabulary is full."""
    wanted, sample_bytes = settings.tokens.vocab_size, settings.tokens.sample_bytes
    sample = min(sample_bytes, sum(files.values())) if files else sample_bytes
    fillable = 257 + round(_MERGES_PER_ROOT_BYTE * math.sqrt(sample))
    if wanted > fillable:
        text = f"is {wanted}, more than {sample} bytes of text can fill: the tokenizer stops near {fillable} or below"
        more = math.ceil(((wanted - 257) / _MERGES_PER_ROOT_BYTE) ** 2)
        text += f"; nearest: {fillable}" + (f", or tokens.sample_bytes {more}" if sample == sample_bytes else "")
        notes.warning("tokens.vocab_size", text, "tokens.sample_bytes", "books")


def _round_down(tokens: int) -> int:
    """Return a multiple of 16 where that leaves something."""
    return tokens // 16 * 16 or tokens
