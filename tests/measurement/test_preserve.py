"""A measurement leaves everything as it found it, however it ends."""

from __future__ import annotations

import copy
import random

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from neuralcollapse import measure
from neuralcollapse.measurement.preserve import on_device, untouched

LABELS = torch.arange(12) % 3
INPUTS = torch.randn(12, 5, generator=torch.Generator().manual_seed(0)) + LABELS[:, None]


class Restless(nn.Module):
    """Changes all that a module can change in a forward pass, in evaluation mode."""

    def __init__(self, error: type[BaseException] | None = None) -> None:
        super().__init__()
        self.register_buffer("cache", torch.zeros(2))
        self.register_buffer("seen", torch.tensor(float("nan")))
        self.cached = 2
        self.error = error

    def forward(self, x: Tensor) -> Tensor:
        self.cache = torch.ones(len(x), 3)
        self.register_buffer("late", torch.ones(1))
        self.seen += 1
        self.cached, self.new = len(x), "plain"
        torch.rand(1), np.random.rand(), random.random()  # noqa: NPY002
        if self.error is not None:
            raise self.error("stop")
        return x


def state_of(model: nn.Module) -> dict:
    modules = list(model.modules())
    return {
        "flags": [module.training for module in modules],
        "hooks": [(len(module._forward_hooks), len(module._forward_pre_hooks)) for module in modules],
        "attributes": [sorted(vars(module)) for module in modules],
        "tensors": {name: (id(t), t.clone()) for name, t in (*model.named_parameters(), *model.named_buffers())},
        "gradients": [(p.requires_grad, None if p.grad is None else p.grad.clone()) for p in model.parameters()],
        "random": (torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()),  # noqa: NPY002
        "modes": (torch.is_grad_enabled(), torch.is_autocast_enabled("cpu"), torch.is_inference_mode_enabled()),
    }


def assert_same(before: dict, after: dict) -> None:
    assert before.keys() == after.keys()
    for name in ("flags", "hooks", "attributes", "modes"):
        assert before[name] == after[name], name
    assert before["tensors"].keys() == after["tensors"].keys()
    for name, (identity, tensor) in before["tensors"].items():
        assert after["tensors"][name][0] == identity, name
        torch.testing.assert_close(after["tensors"][name][1], tensor, rtol=0, atol=0, equal_nan=True)
    for (needed, gradient), (needs, now) in zip(before["gradients"], after["gradients"], strict=True):
        assert needed == needs
        assert gradient is None if now is None else torch.equal(gradient, now)
    assert torch.equal(before["random"][0], after["random"][0])
    assert before["random"][1:] == after["random"][1:]


@pytest.mark.usefixtures("unchecked_shapes")  # beartype draws from Python's random numbers
@pytest.mark.parametrize(
    "error", [None, ValueError, KeyboardInterrupt], ids=lambda error: getattr(error, "__name__", "none")
)
@pytest.mark.parametrize("mode", ["plain", "autocast", "inference"])
def test_everything_is_as_it_was(error: type[BaseException] | None, mode: str) -> None:
    model = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Dropout(), Restless(error), nn.Linear(6, 3))
    model(INPUTS).sum().backward() if error is None else None
    model[1].eval()
    model[0].weight.requires_grad_(False)
    modes = {
        "plain": torch.enable_grad(),
        "autocast": torch.autocast("cpu", torch.bfloat16),
        "inference": torch.inference_mode(),
    }
    with modes[mode]:
        before = state_of(model)
        if error is None:
            measure(model, [(INPUTS, LABELS)], layers=["0", "3"])
        else:
            with pytest.raises(error, match="stop"):
                measure(model, [(INPUTS, LABELS)], layers=["0", "3"])
        assert_same(before, state_of(model))
    assert model[3].cached == 2 if error is not None else True


def test_the_caller_s_modes_change_no_number() -> None:
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3))
    expected = measure(model, [(INPUTS, LABELS)]).to_dict()
    for mode in (torch.autocast("cpu", torch.bfloat16), torch.inference_mode(), torch.enable_grad()):
        with mode:
            found = measure(model, [(INPUTS, LABELS)])
        assert found.to_dict() == expected
        (found.features * nn.Parameter(torch.ones(6))).sum().backward()  # no inference tensors come out


def test_modules_that_merge_their_weights_in_eval_are_not_merged() -> None:
    class Merging(nn.Linear):
        def train(self, mode: bool = True) -> nn.Linear:
            self.weight.data += 1.0 if mode else -1.0
            return super().train(mode)

    model = nn.Sequential(Merging(5, 6), nn.Linear(6, 3))
    before = model[0].weight.detach().clone()
    measure(model, [(INPUTS, LABELS)])
    assert torch.equal(model[0].weight, before)


def test_a_shuffled_loader_draws_the_same_order_as_without_the_measurement() -> None:
    orders = []
    for measured in (False, True):
        generator = torch.Generator().manual_seed(3)
        loader = DataLoader(TensorDataset(INPUTS, LABELS), 4, shuffle=True, generator=generator)
        if measured:
            measure(nn.Linear(5, 3), loader)
        orders.append(torch.cat([labels for _, labels in loader]))
    assert torch.equal(*orders)


@pytest.mark.parametrize("where", ["device", "model"])
def test_the_meta_device_is_refused_and_the_weights_live(where: str) -> None:
    model = nn.Linear(5, 3) if where == "device" else nn.Linear(5, 3, device="meta")
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match="the meta device holds no numbers"):
        measure(model, [(INPUTS, LABELS)], device="meta" if where == "device" else None)
    if where == "device":
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_move_that_fails_half_way_is_undone() -> None:
    class Stuck(nn.Linear):
        def _apply(self, function, recurse: bool = True) -> nn.Module:
            raise RuntimeError("out of memory")

    model = nn.Sequential(nn.Linear(5, 5), nn.BatchNorm1d(5), Stuck(5, 3))
    model[0](INPUTS).sum().backward()
    tensors = {
        name: (id(t), t.data_ptr(), t.clone()) for name, t in (*model.named_parameters(), *model.named_buffers())
    }
    with pytest.raises(RuntimeError, match="out of memory"):
        measure(model, [(INPUTS, LABELS)], device="cpu")
    with pytest.raises(RuntimeError, match="out of memory"), on_device(model, torch.device("meta")):
        pass
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        identity, place, value = tensors[name]
        assert (id(tensor), tensor.data_ptr()) == (identity, place), name
        assert torch.equal(tensor, value), name
    assert model[0].weight.grad.device.type == "cpu"


def test_a_model_without_tensors() -> None:
    class Bare(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x

    with pytest.raises(ValueError, match=r"no classifier found: .* or measure .* with features_only=True"):
        measure(Bare(), [(INPUTS, LABELS)])
    expected = measure(nn.Linear(5, 3), [(INPUTS, LABELS)]).metrics.nc1
    assert measure(Bare(), [(INPUTS, LABELS)], features_only=True).metrics.nc1 == pytest.approx(expected)


def test_modules_are_in_evaluation_mode_inside() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5), nn.BatchNorm1d(2))
    model[2].eval()
    with untouched(model):
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model] == [True, True, False]
