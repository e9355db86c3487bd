"""What a user asks, as a case for the forecaster: flags in the words of the field, checked all together.

A question holds texts or numbers, as they come from the command line, a page or Python. Everything that is wrong with
it is told at once, each problem with what to do next.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from ltm.errors import InputError
from ltm.forecast import fits, here
from ltm.forecast.abilities import card_problems, fill_for_card, is_arch, this_machine
from ltm.forecast.case import ATTENTIONS, CHECKPOINTING, LOOPS, METHODS, OPTIMIZERS, PRECISIONS, Case
from ltm.forecast.devices import Device, device, parse_sheet
from ltm.forecast.estimate import Prices
from ltm.forecast.flags import Given, Problems, choice, count, number
from ltm.forecast.rows import node_link
from ltm.forecast.shapes import Shape, shape
from ltm.units import format_bytes, format_count

DEFAULT_MODEL = "125m"
DEFAULT_CARD = "RTX PRO 6000"
TOKENS_PER_PAGE = 500  # 250K tokens in a book of 500 pages
PARALLEL = {"ddp": 0.0, "zero1": 1.0, "zero2": 2.0, "zero3": 3.0, "fsdp": 3.0}
_USUAL_BATCH_TOKENS = 524_288
_OWN_BATCH_TOKENS = 2048  # of ltm's own runs where nothing else is said
_FEWEST_STEPS = 100  # a default batch is never so large that a run has fewer
_FROM_SCRATCH_TOKENS, _FINE_TUNING_TOKENS = 10_000_000_000, 10_000_000
_THIS = ("cpu", "this")
_MOST_CARDS = 1_000_000


@dataclass(frozen=True)
class Question:
    """One question; `None` = not said. Counts may be written 10B, 1.5k; see `docs/forecast.md` for each word."""

    model: Given = None
    n_layer: Given = None
    n_embd: Given = None
    n_head: Given = None
    n_kv_head: Given = None
    n_hidden: Given = None
    vocab: Given = None
    tokens: Given = None
    books: Given = None
    pages: Given = None
    epochs: Given = None
    method: Given = None
    lora_rank: Given = None
    continued: Given = None
    precision: Given = None
    attention: Given = None
    compile: Given = None
    checkpointing: Given = None
    packing: Given = None
    micro_batch: Given = None
    batch_tokens: Given = None
    seq_len: Given = None
    optimizer: Given = None
    loop: Given = None
    parallel: Given = None
    tp: Given = None
    pp: Given = None
    gpus: Given = None
    gpus_per_node: Given = None
    gpu: Given = None
    usd_per_hour: Given = None
    usd_per_kwh: Given = None
    watts: Given = None


@dataclass(frozen=True)
class Asked:
    """A question understood."""

    question: Question
    shape: Shape
    device: Device
    case: Case
    tokens: float  # to train on, repetitions counted, useless positions not
    distinct_tokens: float  # to be tokenized first
    packing: float  # share of the positions that hold useful tokens
    prices: Prices
    auto_micro_batch: bool  # the micro batch is the largest that fits
    this_machine: bool  # the device is the machine at hand
    data_text: str
    notes: tuple[str, ...]


def ask(question: Question) -> Asked:
    """Return what a question means, with defaults filled in.

    Raises:
        InputError: something is wrong with it; a `ConfigError` lists several problems, all at once.
    """
    problems, notes = Problems(), list[str]()
    card = _device(question, problems)
    model = _shape(question, problems)
    words = {
        "method": choice("method", question.method, METHODS, "full", problems),
        "optimizer": choice("optimizer", question.optimizer, OPTIMIZERS, "adamw", problems),
        "loop": choice("loop", question.loop, LOOPS, "tuned", problems),
        "checkpointing": choice("checkpointing", question.checkpointing, tuple(CHECKPOINTING), "none", problems),
        "precision": choice("precision", question.precision, PRECISIONS, "", problems),
        "attention": choice("attention", question.attention, ATTENTIONS, "", problems),
        "parallel": choice("parallel", question.parallel, tuple(PARALLEL), "", problems),
    }
    counts = {
        name: count(name, getattr(question, name), usual, problems)
        for name, usual in (("gpus", 1), ("tp", 1), ("pp", 1), ("gpus_per_node", 0), ("seq_len", 0), ("lora_rank", 0))
    }
    _method_problems(question, words, counts, problems)
    if card is not None:
        if _is_own(question):  # what ltm's own engine does
            words["attention"] = words["attention"] or "eager"
            if words["method"] == "full":
                words["precision"] = words["precision"] or here.usual_precision(card)
        fill_for_card(words, card, notes)
        card_problems(words, card, problems)
    if model is not None:
        _parallel_problems(counts, model, problems)
        if counts["lora_rank"] > model.n_embd:
            problems.add(
                f"--lora-rank {counts['lora_rank']} is above the width {model.n_embd} of {model.name}",
                "8 to 64 is usual",
            )
    if counts["gpus"] > _MOST_CARDS:
        problems.add(f"--gpus {counts['gpus']:,} is more than any cluster has", f"at most {_MOST_CARDS:,}")
    packing = number("packing", question.packing, 1.0, problems, most=1.0)
    tokens, distinct, data_text = _data(question, words["method"], problems, notes)
    prices = Prices(
        number("usd_per_hour", question.usd_per_hour, 0.0, problems, zero=True),
        number("usd_per_kwh", question.usd_per_kwh, Prices().usd_per_kwh, problems, zero=True),
        number("watts", question.watts, 0.0, problems) or None,
    )
    micro, batch = _batch(question, counts, model, tokens, problems)
    if card is None or model is None or problems.found:
        problems.stop()
        raise AssertionError("unreachable: a missing card or model is a problem")
    case = _case(question, words, counts, model, card, batch, tokens)
    case = _settled(case, card, micro, problems)
    problems.stop()
    own = _is_own(question)
    return Asked(
        question, model, card, case, tokens, distinct, packing, prices, micro == 0, own, data_text, tuple(notes)
    )  # fmt: skip


def ask_machine_and_model(question: Question) -> tuple[Shape, Device, int]:
    """Return the model, the device and how many of them a question names, for what is no training.

    Raises:
        InputError: one of them is wrong; all problems at once.
    """
    problems = Problems()
    card, model, cards = (
        _device(question, problems),
        _shape(question, problems),
        count("gpus", question.gpus, 1, problems),
    )
    problems.stop()
    if card is None or model is None:
        raise AssertionError("unreachable: a missing card or model is a problem")
    return model, card, cards


def evaluation_seconds(
    tokens_per_second: float, distinct_tokens: float, scoring_speedup: float = here.USUAL_SCORING_SPEEDUP
) -> float:
    """Return seconds to measure the loss on held-out text: 1M tokens, or a tenth of the data where that is less."""
    return min(1e6, 0.1 * distinct_tokens) / (scoring_speedup * tokens_per_second)


def _device(question: Question, problems: Problems) -> Device | None:
    name = str(question.gpu or DEFAULT_CARD)
    try:
        if name.lower() == "this" and (found := here.this_gpu()):
            return found
        if _is_own(question):
            return this_machine()
        return device(parse_sheet(name) if "=" in name else name)
    except InputError as error:
        problems.add(error.message, error.hint)
        return None


def _is_own(question: Question) -> bool:
    """Say whether a question is about the machine at hand."""
    return str(question.gpu).lower() in _THIS


def _shape(question: Question, problems: Problems) -> Shape | None:
    names = {"n_layer": "n_layer", "n_embd": "n_embd", "n_head": "n_head", "n_kv_head": "n_kv_head",
             "n_hidden": "n_hidden", "vocab": "vocab_size"}  # fmt: skip
    before = len(problems.found)
    given = {
        field: count(name, getattr(question, name), 0, problems)
        for name, field in names.items()
        if getattr(question, name) is not None
    }
    if len(problems.found) > before:
        return None
    model = str(question.model or DEFAULT_MODEL)
    try:
        base = shape(model)
        if "n_embd" in given:  # what follows from the width in this family
            given.setdefault("n_hidden", -(-base.n_hidden * given["n_embd"] // base.n_embd // 64) * 64)
            if "n_head" not in given and given["n_embd"] % base.head_size == 0:
                given["n_head"] = given["n_embd"] // base.head_size
                given.setdefault("n_kv_head", _kv_heads(given["n_head"], base))
        elif "n_head" in given:
            given.setdefault("n_kv_head", _kv_heads(given["n_head"], base))
        found = shape(model, **given)
        if given:
            name = (model + " " if question.model else "") + f"{found.n_layer} x {found.n_embd}"
            found = dataclasses.replace(found, name=name)
        return found
    except InputError as error:
        problems.add(error.message, error.hint)
        return None


def _kv_heads(heads: int, base: Shape) -> int:
    """Return key heads in the family's proportion that divide the heads."""
    wanted = max(1, heads * base.n_kv_head // base.n_head)
    return max(kv for kv in range(1, wanted + 1) if heads % kv == 0)


def _data(question: Question, method: str, problems: Problems, notes: list[str]) -> tuple[float, float, str]:
    """Return tokens with repetitions, distinct tokens, and both in words."""
    epochs = number("epochs", question.epochs, 1.0, problems)
    times = "1 epoch" if epochs == 1 else f"{epochs:g} epochs"
    tokens = count("tokens", question.tokens, 0, problems)
    books, pages = count("books", question.books, 0, problems), count("pages", question.pages, 0, problems)
    if question.tokens is not None and (question.books is not None or question.pages is not None):
        problems.add("--tokens and --books say the amount of data twice", "give one of them")
    elif question.books is not None and question.pages is None:
        problems.add(f"--books {question.books} does not say how long they are", "add --pages; 500 is usual")
    elif question.pages is not None and question.books is None:
        problems.add(f"--pages {question.pages} does not say how many books there are", "add --books")
    if books and pages:
        distinct = float(books * pages * TOKENS_PER_PAGE)
        size = f"{books:,} book{'s' if books > 1 else ''} of {pages:,} pages ({format_count(distinct)} tokens)"
        return distinct * epochs, distinct, f"{size}, {times}"
    if not tokens:
        tokens = _FROM_SCRATCH_TOKENS if method == "full" and not question.continued else _FINE_TUNING_TOKENS
        if question.tokens is None:
            notes.append(f"{format_count(tokens)} tokens assumed; say --tokens, or --books and --pages")
    return tokens * epochs, float(tokens), f"{format_count(tokens)} tokens, {times}"


def _method_problems(question: Question, words: dict[str, str], counts: dict[str, int], problems: Problems) -> None:
    method, precision = words["method"], words["precision"]
    if method == "full" and question.lora_rank is not None:
        problems.add("--lora-rank goes with --method lora or qlora", "add --method lora, or leave the rank out")
    if method == "qlora" and precision in ("fp32", "tf32", "fp8"):
        problems.add(f"--method qlora computes in 16 bits, not in {precision}", "use --precision bf16 (or fp16)")
    if method == "lora" and precision == "fp8":
        problems.add("--method lora keeps its adapters in 16 bits; fp8 does not apply", "use --precision bf16")
    if words["parallel"] and counts["gpus"] == 1:
        what = "averages gradients over" if words["parallel"] == "ddp" else "shares the model between"
        problems.add(
            f"--parallel {words['parallel']} {what} several cards; on one card it saves nothing",
            "add --gpus 2 or more, or leave --parallel out",
        )


def _parallel_problems(counts: dict[str, int], model: Shape, problems: Problems) -> None:
    gpus, tp, pp = counts["gpus"], counts["tp"], counts["pp"]
    if gpus % (tp * pp):
        problems.add(
            f"--tp {tp} x --pp {pp} = {tp * pp} does not divide --gpus {gpus}",
            f"nearest: --gpus {max(1, round(gpus / (tp * pp))) * tp * pp}",
        )
    node = counts["gpus_per_node"]
    if node and gpus > node and gpus % node:
        below = max(k for k in range(1, node) if gpus % k == 0)
        above = min(k for k in range(node, gpus + 1) if gpus % k == 0)
        problems.add(
            f"--gpus-per-node {node} does not divide --gpus {gpus}", f"nearest: --gpus-per-node {below} or {above}"
        )
    if model.n_head % tp:
        near = max(k for k in range(1, tp + 1) if model.n_head % k == 0)
        problems.add(f"--tp {tp} does not divide the {model.n_head} heads of {model.name}", f"nearest: --tp {near}")
    if pp > model.n_layer:
        problems.add(
            f"--pp {pp} is more than the {model.n_layer} layers of {model.name}", f"at most --pp {model.n_layer}"
        )


def _batch(
    question: Question, counts: dict[str, int], model: Shape | None, tokens: float, problems: Problems
) -> tuple[int, float]:
    """Return the micro batch (0 = the largest that fits) and the tokens of one step of the optimizer."""
    automatic = question.micro_batch is None or str(question.micro_batch).lower() in ("fits", "auto")
    micro = 0 if automatic else count("micro_batch", question.micro_batch, 0, problems)
    asked = count("batch_tokens", question.batch_tokens, 0, problems)
    seq_len = counts["seq_len"] or (model.seq_len if model else 0)
    if not seq_len:
        return micro, 0.0
    replicas = max(1, counts["gpus"] // (counts["tp"] * counts["pp"]))
    least = seq_len * replicas * max(1, micro)
    if asked:
        if asked < least and micro:
            problems.add(
                f"--micro-batch {micro} x {seq_len} tokens x {replicas} replica{'s' if replicas > 1 else ''} = "
                f"{least:,} tokens is more than --batch-tokens {asked:,}",
                f"use --micro-batch {max(1, asked // (seq_len * replicas))} or --batch-tokens {least}",
            )
        elif asked < least:
            problems.add(
                f"--batch-tokens {asked:,} is less than one sequence of {seq_len} on each of {replicas} replicas",
                f"use --batch-tokens {least}",
            )
        return micro, float(asked)
    usual = _OWN_BATCH_TOKENS if _is_own(question) else _USUAL_BATCH_TOKENS
    wanted = min(float(usual), tokens / _FEWEST_STEPS)
    return micro, float(max(1, int(wanted // least)) * least)


def _case(
    question: Question,
    words: dict[str, str],
    counts: dict[str, int],
    model: Shape,
    card: Device,
    batch: float,
    tokens: float,
) -> Case:
    """Return the case; its micro batch is still one sequence."""
    method, precision, gpus = words["method"], words["precision"], counts["gpus"]
    usual = here.compiles(card, model.parameters, tokens) if _is_own(question) else not is_arch(card, "CPU")
    usual = usual and method == "full"  # trainers of adapters do not compile
    compiled = usual if question.compile is None else bool(question.compile)
    adapters = method != "full"
    return Case(
        n_layer=model.n_layer, n_embd=model.n_embd, n_head=model.n_head, n_kv_head=model.n_kv_head,
        head_size=model.head_size, n_hidden=model.n_hidden, vocab_size=model.vocab_size,
        gated=float(model.gated), tied=float(model.tied), learned_positions=float(model.learned_positions),
        window=float(model.window), n_params=float(model.n_params),
        seq_len=float(counts["seq_len"] or model.seq_len), micro_batch=1.0, global_batch_tokens=batch,
        precision=float(PRECISIONS.index(precision)),
        mixed=float(not adapters and precision in ("fp16", "bf16", "fp8")),
        attention=float(ATTENTIONS.index(words["attention"])),
        checkpointing=CHECKPOINTING[words["checkpointing"]], kernels=2.0 if compiled else 0.0,
        method=float(METHODS.index(method)), lora_rank=float(counts["lora_rank"] or 16) if adapters else 0.0,
        lora_attention=1.0, lora_mlp=float(adapters), optimizer=float(OPTIMIZERS.index(words["optimizer"])),
        loop=float(LOOPS.index(words["loop"])),
        n_devices=float(gpus), devices_per_node=float(counts["gpus_per_node"] or min(8, gpus)),
        node_link=node_link(card), tp=float(counts["tp"]), pp=float(counts["pp"]),
        zero=PARALLEL[words["parallel"] or "ddp"], continued=float(bool(question.continued) or adapters),
    )  # fmt: skip


def _settled(case: Case, card: Device, micro: int, problems: Problems) -> Case:
    """Return the case with its micro batch, once a single sequence is short enough for the card."""
    longest = fits.longest_sequence(case, card)
    if longest < case.seq_len:
        if longest:
            problems.add(
                f"--seq-len {case.seq_len:,.0f}: the activations of one sequence alone do not fit in "
                f"{format_bytes(card.memory_bytes)} of {card.name}",
                f"at most about --seq-len {longest}, with full checkpointing; --tp shares a sequence between cards",
            )
        return case
    return dataclasses.replace(case, micro_batch=float(micro)) if micro else fits.largest_micro_batch(case, card)
