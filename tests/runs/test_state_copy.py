"""The copy of a state: its values, its buffers, and what may change when."""

from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from convolt.runs.state_copy import StateCopy


def large(value: float) -> Tensor:
    return torch.full((200, 200), value)


def state_of(network: nn.Module) -> dict[str, Any]:
    return {"state_dict": network.state_dict(), "rows": [{"epoch": 1, "loss": 0.5}], "pair": (1, torch.ones(2))}


def test_a_copy_is_the_state_and_stays_when_that_changes() -> None:
    network = nn.Sequential(nn.Linear(200, 200), nn.BatchNorm1d(200)).to(memory_format=torch.contiguous_format)
    state = state_of(network)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    aside = StateCopy()
    copied = aside.begin(state, at_once=True)
    with torch.no_grad():
        for value in network.state_dict().values():
            value.add_(1)
    state["rows"][0]["loss"] = 7
    state["rows"].append({})
    state["pair"][1].zero_()
    aside.complete()
    assert all(torch.equal(copied["state_dict"][name], value) for name, value in before.items())
    assert copied["rows"] == [{"epoch": 1, "loss": 0.5}]
    assert copied["pair"][0] == 1
    assert copied["pair"][1].tolist() == [1, 1]
    assert type(copied["state_dict"]) is OrderedDict
    assert copied["state_dict"]._metadata == network.state_dict()._metadata  # versions, which loading reads


def test_large_tensors_are_copied_when_it_completes_and_small_ones_at_once() -> None:
    aside, state = StateCopy(), {"large": large(1), "small": torch.ones(3)}
    assert aside.completed.is_set()
    copied = aside.begin(state, at_once=False)
    assert not aside.completed.is_set()
    state["large"][0, 0] = 2  # as nobody may before it is complete
    state["small"][0] = 2
    aside.complete()
    assert aside.completed.is_set()
    assert copied["large"][0, 0] == 2
    assert copied["small"][0] == 1


def test_buffers_are_used_again_and_not_those_of_tensors_that_are_gone() -> None:
    aside, first, second = StateCopy(), large(1), large(2)

    def copied(state: dict[str, Tensor]) -> dict[str, Tensor]:
        found = aside.begin(state, at_once=False)
        aside.complete()
        return found

    once = copied({"a": first, "b": second})
    first.fill_(3)
    again = copied({"a": first})
    assert again["a"].data_ptr() == once["a"].data_ptr() != first.data_ptr()
    assert again["a"][0, 0] == 3
    assert len(aside._buffers) == 1


def test_layout_type_and_sharing_are_kept() -> None:
    image = torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last)
    state = {"a": image, "b": image.detach(), "half": torch.ones(3, dtype=torch.bfloat16), "none": torch.ones(0)}
    state["parameter"] = nn.Parameter(torch.ones(2))
    aside = StateCopy()
    copied = aside.begin(state, at_once=False)
    aside.complete()
    assert copied["a"].stride() == image.stride()
    assert copied["a"] is copied["b"]
    assert copied["half"].dtype == torch.bfloat16
    assert copied["none"].shape == (0,)
    assert isinstance(copied["parameter"], nn.Parameter)
    assert copied["parameter"] is not state["parameter"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_gpu_copies_in_order_and_nobody_waits() -> None:
    aside, state = StateCopy(), {"large": torch.ones(4000, 4000, device="cuda"), "host": large(1)}
    for value in (1, 2):
        state["large"].fill_(value)
        copied = aside.begin(state, at_once=False)
        state["large"].add_(5)
        aside.complete()
        assert copied["large"].is_pinned()
        assert bool((copied["large"] == value).all())
        assert copied["host"][0, 0] == 1
