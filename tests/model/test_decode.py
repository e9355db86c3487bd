"""Reading token by token gives the logits of reading all at once."""

import pytest
import torch

import hugging_face as hf
from ltm.errors import DataError
from ltm.model.decode import Memory, read


@pytest.mark.parametrize("shape", hf.SHAPES)
@pytest.mark.parametrize("cuts", [[48], [1] * 48, [5, 1, 1, 20, 21]])
def test_logits_are_those_of_the_whole(shape, cuts):
    model = hf.our_model(hf.our_config(shape, base_width=32 if "grouped" in shape else 0))
    tokens = hf.some_tokens()[0]
    with torch.inference_mode():
        whole = model(tokens[None])[0]
    memory, place = Memory(model), 0
    for count in cuts:
        found = read(model, tokens[place : place + count], memory)
        place += count
        assert torch.allclose(found, whole[place - 1], atol=2e-4, rtol=1e-4), place
    assert memory.length == 48


def test_what_is_cut_off_leaves_no_trace():
    model = hf.our_model(hf.our_config("llama-grouped"))
    one, two = hf.some_tokens()[:2]
    memory = Memory(model)
    read(model, torch.cat([one[:10], two[:20]]), memory)
    memory.cut(10)
    again = read(model, one[10:30], memory)
    assert torch.allclose(again, read(model, one[:30], Memory(model)), atol=2e-4)


def test_the_context_has_an_end():
    model = hf.our_model(hf.our_config("llama"))
    memory = Memory(model)
    with pytest.raises(DataError):
        read(model, torch.zeros(49, dtype=torch.long), memory)
    with pytest.raises(DataError):
        read(model, torch.zeros(0, dtype=torch.long), memory)
    read(model, torch.zeros(48, dtype=torch.long), memory)
    with pytest.raises(DataError):
        read(model, torch.zeros(1, dtype=torch.long), memory)
