"""Trees of tokens: what a place sees, what the last layer leaves out, and rows without padding."""

import dataclasses

import numpy as np
import pytest
import torch

from ltm.model.branches import Branches, attend_seen
from ltm.model.gpt import GPT
from ltm.model.init import init_weights
from ltm.model.sizes import ModelConfig
from ltm.records import Item
from ltm.scores.forward import Scorer
from ltm.scores.plan import make_plan

LLAMA = ModelConfig("llama", 2, 4, 2, 32, 48, 128, 48)
SHAPES = {
    "llama": LLAMA,
    "mistral": dataclasses.replace(LLAMA, family="mistral", window=5),
    "gpt2": dataclasses.replace(LLAMA, family="gpt2", n_kv_head=4),
}


def forest(rng, n_tokens: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return depth, end and who sees whom of trees that grow by chance, told by their parents alone."""
    parent = np.full(n_tokens, -1)
    path = []
    for place in range(n_tokens):
        if rng.random() < 0.15:
            path = path[: int(rng.integers(0, len(path) + 1))]
        path = path[:40]  # texts fit a block
        parent[place] = path[-1] if path else -1
        path = [*path, place]
    sees = np.eye(n_tokens, dtype=bool)
    depth = np.zeros(n_tokens, dtype=int)
    for place in range(n_tokens):
        if parent[place] >= 0:
            sees[place] |= sees[parent[place]]
            depth[place] = depth[parent[place]] + 1
    end = np.array([np.flatnonzero(sees[:, place]).max() + 1 for place in range(n_tokens)])
    return depth, end, sees


def rows(seed: int, n_rows: int = 2, n_tokens: int = 201):
    made = [forest(np.random.default_rng([seed, row]), n_tokens) for row in range(n_rows)]
    return tuple(torch.from_numpy(np.stack(part)) for part in zip(*made, strict=True))


@pytest.mark.parametrize("masked", [False, True])  # True: as on a GPU and under a compiler
@pytest.mark.parametrize("window", [0, 1, 7])
@pytest.mark.parametrize("seed", range(3))
def test_a_place_gathers_from_its_own_branch_alone(seed, window, masked, monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: masked)
    depth_BT, end_BT, sees_BTT = rows(seed)
    B, T = depth_BT.shape
    torch.manual_seed(seed)
    q_BTHC, k_BTKC, v_BTKC = (torch.randn(B, T, n, 8, dtype=torch.float64) for n in (4, 2, 2))
    if window:
        sees_BTT = sees_BTT & (depth_BT[:, :, None] - depth_BT[:, None] < window)
    scores_BHTT = torch.einsum("bqhc,bshc->bhqs", q_BTHC, k_BTKC.repeat_interleave(2, 2)) * 0.3
    weights_BHTT = scores_BHTT.masked_fill(~sees_BTT[:, None], float("-inf")).softmax(-1)
    expected = torch.einsum("bhqs,bshc->bqhc", weights_BHTT, v_BTKC.repeat_interleave(2, 2))
    seen = Branches(depth_BT, end_BT).seen(window, torch.float64)
    assert isinstance(seen, torch.Tensor) == masked
    assert torch.allclose(attend_seen(q_BTHC, k_BTKC, v_BTKC, 0.3, seen), expected, rtol=1e-12, atol=1e-12)
    wanted_P = torch.tensor([3, 64, 65, 66, 200, 201, 400, 401])  # the stretch from 128 has none
    found = attend_seen(q_BTHC, k_BTKC, v_BTKC, 0.3, seen, wanted_P)
    assert torch.allclose(found, expected.flatten(0, 1)[wanted_P], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", SHAPES)
def test_wanted_places_have_the_states_that_all_have(name):
    depth_BT, end_BT, _ = rows(5)
    model = GPT(SHAPES[name]).double().eval()
    init_weights(model, 1)
    tokens_BT = torch.randint(0, 128, depth_BT.shape, generator=torch.Generator().manual_seed(0))
    wanted_P = torch.tensor([0, 9, 70, 190, 201, 390, 390])
    with torch.inference_mode():
        every = model.hidden(tokens_BT, branches=Branches(depth_BT, end_BT))
        some = model.hidden(tokens_BT, branches=Branches(depth_BT, end_BT, wanted_P))
    assert every.shape == (2, 201, 32)
    assert torch.allclose(some, every.flatten(0, 1)[wanted_P], rtol=1e-11, atol=1e-12)


def encode(text: str) -> list[int]:
    return [ord(c) % 128 for c in text]


def bank(n: int = 60) -> list[Item]:
    rng = np.random.default_rng(2)
    letters = np.array(list("abcde "))
    stems = ["".join(rng.choice(letters, 25)) for _ in range(5)]
    items = []
    for k in range(n):
        context = stems[k % 5][: int(rng.integers(0, 26))]
        options = ["x" + "".join(rng.choice(letters, int(rng.integers(1, 12)))) + str(i) for i in range(2)]
        items.append(
            Item(f"i{k}", "a", "linking", "X", "en", "c", "likelihood", [context] * 2, options, 0)
        )  # fmt: skip
    return items


@pytest.mark.parametrize("n_tokens", [1, 100, 100_000])
def test_rows_without_padding_hold_every_prediction_once(n_tokens):
    plan = make_plan(bank(), encode, 0, 48)
    found: dict[int, list[tuple[int, int]]] = {}
    for rows in plan.flat(n_tokens):
        tokens, depth, end = rows.tokens_RW[0], rows.depth_RW[0], rows.end_RW[0]
        assert ((depth == 0) & (end == np.arange(1, rows.width + 1))).sum() < 16  # only what fills up the last step
        for place, target, request in zip(rows.place_N, rows.target_N, rows.request_N, strict=True):
            branch = np.flatnonzero((np.arange(rows.width) <= place) & (end > place))
            assert depth[branch].tolist() == list(range(len(branch)))
            found.setdefault(int(request), []).append((tuple(tokens[branch]), int(target)))
    for request, (left, right) in enumerate(plan.requests):
        whole = (0, *left, *right)
        assert sorted(found[request]) == sorted((whole[:k], whole[k]) for k in range(len(left) + 1, len(whole)))
    assert sum(rows.tokens_RW.size for rows in plan.flat(100_000)) <= sum(r.tokens_RW.size for r in plan.narrow)


def test_an_answer_does_not_depend_on_what_it_is_asked_with():
    items = bank()
    for dtype, error in ((torch.float32, 2e-6), (torch.float64, 1e-12)):
        model = GPT(LLAMA)
        init_weights(model, 3)
        scorer = Scorer(model.to(dtype))
        together = make_plan(items, encode, 0, 48)
        values = together.answers(scorer.logprobs(together)).reshape(-1, 2)
        for k in (0, 17, 59):
            alone = make_plan([items[k]], encode, 0, 48)
            assert alone.answers(scorer.logprobs(alone)) == pytest.approx(values[k], rel=error)
