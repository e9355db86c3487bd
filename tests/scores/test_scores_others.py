"""Written answers, adapters, simple models, the choice of a metric, dropped items, and abilities together."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from ltm.model.gpt import GPT
from ltm.model.init import init_weights
from ltm.model.sizes import ModelConfig
from ltm.records import Item, Run, Variant
from ltm.scores import metric
from ltm.scores.adapt import BATCH, PROBES, adapted, steps_within
from ltm.scores.baselines import choose, endings
from ltm.scores.factors import correlations, residual
from ltm.scores.generate import generated, normalised
from ltm.scores.icc import Layout, decision_accuracy
from ltm.scores.measures import FamilyTable
from ltm.scores.reliability import Baselines, judge
from ltm.scores.section import ScoresSection
from ltm.store import WorkFolder, read_json


class Letters:
    """A tokenizer of single characters."""

    vocab_size, bos_id = 128, 0

    def encode(self, text):
        return [ord(c) % 128 for c in text]

    def decode(self, ids):
        return "".join(chr(i) for i in ids)


def item(rule, contexts, continuations, gold=0, name="i", **more):
    return Item(name, "a", "transfer", "X", "en", "c", rule, contexts, continuations, gold, **more)


class Parrot(torch.nn.Module):
    """Says one text whatever it is asked: the next letter follows from how many were made."""

    def __init__(self, says, prompt):
        super().__init__()
        self.says, self.start = says + "\0" * 20, len(prompt) + 1
        self.config = dataclasses.replace(SMALL, block_size=64)
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def hidden(self, tokens):
        return tokens.float()[..., None]

    def head(self, hidden):
        return torch.nn.functional.one_hot(torch.tensor([ord(self.says[self.made])]), 128).float()


SMALL = ModelConfig("llama", 1, 2, 2, 16, 32, 128, 64)


@pytest.mark.parametrize(
    ("says", "right"),
    [(" the lamp.", True), (" The Lamp", True), (" the lamps", False), (" a ring", False), (" the lamp of gold", True)],
)
def test_written_answers_are_compared_without_case_and_marks(says, right, monkeypatch):
    one = item("generate", ["Who has it?"] * 2, [" the lamp", " it is the lamp"])
    made = iter(says + "\0")
    model = Parrot(says, one.contexts[0])
    monkeypatch.setattr(model, "head", lambda _h: torch.nn.functional.one_hot(torch.tensor([ord(next(made))]), 128))
    assert generated(model, one, Letters()) == (0.0 if right else -math.inf)
    assert normalised(" «Да», — сказал!") == "да сказал"


def rules(seed=0):
    """Training cells and probes of one rule: after `x` comes `y`."""
    cells = [(f"the {c} is a", " zup") for c in "abcdefgh"]
    return item("adapt", [c for c, _ in cells], [k for _, k in cells], gold=6)


def test_adapter_learns_and_leaves_the_model_as_it_was():
    model = GPT(SMALL)
    init_weights(model, 1)
    before = {name: p.clone() for name, p in model.named_parameters()}
    none, some = adapted(model, rules(), Letters(), 0), adapted(model, rules(), Letters(), 40)
    assert some > none + 0.05  # less loss
    assert adapted(model, rules(), Letters(), 40) == some
    assert all((p == before[name]).all() for name, p in model.named_parameters())
    assert not any(layer._forward_hooks for layer in model.modules())


def test_adapters_cost_at_most_their_share():
    items = [rules(), rules()]
    tokens = len("the a is a zup")
    for budget in (3_000, 20_000):
        steps = steps_within(items, Letters(), budget)
        cost = 2 * (steps * BATCH * tokens + PROBES * 2 * tokens / 3)
        assert steps >= PROBES - 1
        assert cost <= max(budget, 2 * ((PROBES - 1) * BATCH * tokens + PROBES * 2 * tokens / 3))
    assert steps_within([item("pair", ["", ""], ["a", "b"])], Letters(), 10_000) == 0


def test_endings_keep_the_options_and_lose_the_context():
    bank = [
        item("choice", ["ctx"] * 2 + ["n"] * 2, [" a", " b"] * 2, 1),
        item("likelihood", ["ctx"] * 3, [" a", " b", " c"], 2),
        item("pair", ["same", "same"], [" a", " b"], 1),
        item("pair", ["one", "two"], [" a", " a"]),
        item("contrast", list("PQPQ"), [" a", " a", " b", " b"]),
        item("pair", ["", ""], ["ab", "ba"]),
    ]
    bare = endings(bank)
    assert [b.rule for b in bare] == ["likelihood", "likelihood", "pair", "unasked", "unasked", "unasked"]
    assert all(not any(b.contexts) for b in bare[:3])
    assert [(len(b.contexts), b.gold) for b in bare[:3]] == [(2, 1), (3, 2), (2, 1)]


def test_simple_models_keep_the_runs_that_they_were_made_from(tmp_path):
    def runs(n):
        rest = [getattr(RUN, name) for name in Run.__dataclass_fields__][3:]
        return [Run(f"r{k}", f"v{k}", 0, *rest) for k in range(n)]

    work = WorkFolder(tmp_path)
    section = ScoresSection(baselines=2)
    first = choose(work, section, runs(5))
    assert first.runs == ["r0", "r4"]
    assert choose(work, section, runs(9)) == first
    assert choose(work, section, runs(3)).runs == ["r0", "r2"]
    assert choose(work, section, []).runs == []


RUN = Run("r", "v", 0, "m", 1, 1, 1, 1.0, 1.0, 0.0, "cpu", "float32", 1.0, [], [], "w", "", "")


def families(n_sets=40, seeds=2, rng_seed=0, margin_noise=3.0, logit_noise=0.1, n_items=80, ability="linking"):
    """Runs whose logits tell sets apart better than their margins do."""
    rng = np.random.default_rng(rng_seed)
    names = [f"v{k}" for k in range(n_sets) for _ in range(seeds)]
    level = np.repeat(rng.normal(0, 1, n_sets), seeds)
    n = len(names)
    num = level[:, None] + rng.normal(0, margin_noise, n)[:, None] + rng.normal(0, 1, (n, n_items)) + 5
    logit = level[:, None] + rng.normal(0, logit_noise, n)[:, None] + rng.normal(0, 1, (n, n_items))
    clusters = [f"b{k % 10}" for k in range(n_items)]
    table = FamilyTable(ability, "L1", clusters, num, np.ones_like(num), (num > 0).astype(float), logit_RI=logit,
                        items=[f"i{k}" for k in range(n_items)])  # fmt: skip
    return table, names


def test_metric_with_the_highest_icc_is_taken_and_kept(tmp_path):
    work = WorkFolder(tmp_path)
    table, names = families()
    layout, section = Layout.flat(len(names)), ScoresSection()
    first = np.ones(len(names), dtype=bool)
    assert metric.choose_metrics(work, "m", [table], names, layout, section, first) == {"linking": "logit"}
    assert read_json(work.path("scores", "metrics.json"))["icc"]["linking"]["logit"] > 0.9
    other, _ = families(margin_noise=0.1, logit_noise=9.0)
    assert metric.choose_metrics(work, "m", [other], names, layout, section, first) == {"linking": "logit"}  # frozen
    assert metric.choose_metrics(work, "n", [other], names, layout, section, first) == {"linking": "margin"}
    fixed = ScoresSection(metric="accuracy")
    assert metric.choose_metrics(work, "n", [other], names, layout, fixed, first) == {"linking": "accuracy"}


def test_without_replicates_the_margin_stays_and_nothing_is_kept(tmp_path):
    work = WorkFolder(tmp_path)
    table, names = families(seeds=1)
    first = np.ones(len(names), dtype=bool)
    chosen = metric.choose_metrics(work, "m", [table], names, Layout.flat(len(names)), ScoresSection(), first)
    assert chosen == {"linking": "margin"}
    assert not work.path("scores", "metrics.json").exists()


def test_items_are_dropped_by_pilot_runs_alone(tmp_path):
    work = WorkFolder(tmp_path)
    table, names = families(margin_noise=0.1)
    num = table.num_RI.copy()
    num[:, 3] = 1.0  # the same for all
    num[:, 5] = -num[:, 5]  # against the others
    table = dataclasses.replace(table, num_RI=num)
    solved = np.zeros((2, 80))
    solved[:, 7] = 3.5
    ngram = dataclasses.replace(table.of_runs(np.arange(len(names)) < 2), logit_RI=solved)

    def design(n_pilot):
        rest = dict(index=0, block=0, set_id=0, template="single", arm="base", book_ids=[], order="random",
                    gap_kind="none", density=1.0, spacing=1, stream_seed=0, init_seeds=[0])  # fmt: skip
        return [Variant(variant_id=f"v{k}", round="pilot" if k < n_pilot else "exploration", **rest) for k in range(40)]

    none = metric.worthless_items(work, "m", [table], [ngram], names, design(0), ScoresSection())
    assert none == {}
    dropped = metric.worthless_items(work, "m", [table], [ngram], names, design(20), ScoresSection())
    assert dropped["i3"] == "the same for all runs"
    assert dropped["i5"] == "against the other items of its family"
    assert dropped["i7"] == "solved by counting five words in a row"
    assert len(dropped) < 12
    assert metric.worthless_items(work, "m", [table], [ngram], names, design(0), ScoresSection()) == dropped  # frozen
    left = metric.without(table, dropped)
    assert set(left.items) == set(table.items) - set(dropped)
    assert metric.worthless_items(work, "x", [table], [ngram], names, design(20), ScoresSection(prune=False)) == {}


def test_family_that_five_words_in_a_row_explain_is_not_admitted():
    table, names = families(margin_noise=0.1)
    rng = np.random.default_rng(1)
    right = (rng.random(table.num_RI.shape) < 0.8).astype(float)
    table = dataclasses.replace(table, correct_RI=right)

    def simple(share):
        own = table.of_runs(np.arange(len(names)) < 3)
        value = (rng.random(own.num_RI.shape) < share).astype(float)
        return dataclasses.replace(own, num_RI=own.num_RI * 0, correct_RI=value)

    gate = ScoresSection()
    beaten = judge([table], Baselines([simple(0.5)], [simple(0.5)], [simple(0.55)]), names, gate)[0]
    assert beaten.admitted, beaten.reason
    assert beaten.ngram == pytest.approx(0.55, abs=0.1)
    assert beaten.z_over_ngram > 2
    solved = judge([table], Baselines([simple(0.5)], [simple(0.5)], [simple(0.85)]), names, gate)[0]
    assert not solved.admitted
    assert solved.reason.startswith("not clearly better than counting five words in a row")


def test_one_factor_is_called_one_and_two_are_not():
    rng = np.random.default_rng(4)
    n, items = 60, 200
    fluency, one, two = rng.normal(0, 1, (3, n))

    def table(ability, level):
        num = level[:, None] + rng.normal(0, 2, (n, items))
        clusters = [f"b{k % 10}" for k in range(items)]
        return FamilyTable(ability, ability, clusters, num, np.ones_like(num), np.full_like(num, np.nan))

    tables = [table("linking", fluency + one), table("transfer", fluency + one), table("synthesis", fluency + two),
              table("fluency", fluency)]  # fmt: skip
    rows = {(r["one"], r["two"]): r for r in correlations(tables, {}, ["c"] * n)}
    same, other = rows["linking", "transfer"], rows["linking", "synthesis"]
    assert same["one_factor"]
    assert "one factor" in same["text"]
    assert not other["one_factor"]
    assert other["raw"] > 0.3 > abs(other["without_fluency"]) - 0.05
    assert abs(np.corrcoef(residual(one + fluency, fluency), fluency)[0, 1]) < 1e-9


def test_decisions_of_two_seeds():
    values = np.array([1.0, 1.1, 2.0, 2.2, 3.0, 0.5])
    assert decision_accuracy(values, ["a", "a", "b", "b", "c", "c"]) == pytest.approx(1 / 3)
    assert math.isnan(decision_accuracy(values[:4], ["a", "b", "c", "d"]))
