"""Models, loaders and arguments that nobody had in mind: the right number, or a sentence that says what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from neuralcollapse import (
    ClassStatistics,
    collapse_metrics,
    find_classifier,
    fix_classifier,
    measure,
    measure_features,
    ufm,
)
from neuralcollapse.measurement import extract_features

_LABELS = torch.arange(60) % 3


def _inputs() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(3, 8, generator=generator)[_LABELS] * 2 + 0.3 * torch.randn(60, 8, generator=generator)


def _mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))


def _nc1(features: Tensor) -> float:
    rows, labels = features.detach().double().numpy(), _LABELS.numpy()
    means = np.stack([rows[labels == k].mean(0) for k in range(3)])
    centred, within = means - means.mean(0), rows - means[labels]
    between = centred.T @ centred / 3
    return float(np.trace(within.T @ within / 60 @ np.linalg.pinv(between, rcond=1e-10)) / 3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("given", [torch.float32, torch.float64, torch.float16])
def test_a_loader_of_another_precision_than_the_model(dtype: torch.dtype, given: torch.dtype) -> None:
    model, inputs = _mlp().to(dtype), _inputs().to(given)
    batches = [{"x": inputs[:25], "labels": _LABELS[:25]}, {"x": inputs[25:], "labels": _LABELS[25:]}]
    with torch.no_grad():
        expected = _nc1(model[:2](inputs.to(dtype)))
    assert measure(model, batches, layers=["0"]).metrics.nc1 == pytest.approx(expected, rel=1e-4)


def test_a_model_that_converts_its_inputs_gets_them_as_they_are() -> None:
    class Normalised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = _mlp().half()

        def forward(self, x: Tensor) -> Tensor:
            assert x.dtype == torch.float32
            return self.body((x - 1e4).half())

    features = extract_features(Normalised(), [(_inputs() + 1e4, _LABELS)]).features
    assert features.isfinite().all()


def test_new_tensors_by_default_on_another_device() -> None:
    model, inputs = _mlp(), _inputs()
    with torch.no_grad():
        expected = _nc1(model[:2](inputs))
    for labels in (_LABELS, _LABELS.numpy(), _LABELS.tolist()):
        for ncc in (True, False):
            with torch.device("meta"):
                found = measure(model, [(inputs, labels)], ncc=ncc).metrics.nc1
            assert found == pytest.approx(expected, rel=1e-5)
    with torch.device("meta"):
        assert measure_features(inputs, _LABELS).nc1 == pytest.approx(_nc1(inputs), rel=1e-5)


@pytest.mark.filterwarnings("ignore:.*jit.*:DeprecationWarning")
def test_scripted_parts_are_left_whole() -> None:
    part = nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.ReLU())
    model = nn.Sequential(torch.jit.script(part), nn.Linear(6, 3)).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = measure(model, [(_inputs(), _LABELS)]).metrics.nc1
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(module.training for module in model.modules())
    with torch.no_grad():
        assert found == pytest.approx(_nc1(model.eval()[0](_inputs())), rel=1e-4)


def test_nested_mappings_and_nested_tensors() -> None:
    class Views(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(8, 3)

        def forward(self, views: dict[str, dict[str, Tensor]]) -> Tensor:
            return self.fc(views["first"]["x"])

    found = measure(Views(), [({"first": {"x": _inputs()}}, _LABELS)]).metrics.nc1
    assert found == pytest.approx(_nc1(_inputs()), rel=1e-4)

    class Sets(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(8, 3)

        def forward(self, sets: Tensor) -> Tensor:
            return self.fc(torch.stack([rows.mean(0) for rows in sets.unbind()]))

    sets = torch.nested.nested_tensor([row.repeat(2, 1) for row in _inputs()], layout=torch.jagged)
    assert measure(Sets(), [(sets, _LABELS)]).metrics.nc1 == pytest.approx(_nc1(_inputs()), rel=1e-4)
    with pytest.raises(ValueError, match="takes nested features: pass forward="):
        measure(_mlp(), [(sets, _LABELS)])


@pytest.mark.filterwarnings("ignore:Complex modules:UserWarning")
def test_models_that_cannot_be_measured_say_what_to_do() -> None:
    pairs = [(_inputs(), _LABELS)]
    maps = [(torch.randn(6, 3, 8, 8), torch.arange(6) % 3)]
    exported = torch.export.export(_mlp(), (_inputs(),)).module()
    cases: list[tuple[type[Exception], str, Callable[[], Any]]] = [
        (TypeError, "measure it before torch.export", lambda: measure(exported, pairs)),
        (ValueError, "run one batch", lambda: measure(nn.Sequential(nn.LazyLinear(6), nn.Linear(6, 3)), pairs)),
        (ValueError, "run one batch", lambda: measure(nn.Sequential(nn.LazyLinear(3)), pairs)),
        (
            ValueError,
            "complex64 features: pass forward=",
            lambda: measure(nn.Sequential(nn.Linear(8, 3)).to(torch.complex64), [(_inputs().cfloat(), _LABELS)]),
        ),
        (
            ValueError,
            "logits are neither its output at one position nor the mean",
            lambda: measure(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 3, 1)), maps),
        ),
    ]
    for kind, message, call in cases:
        with pytest.raises(kind, match=message):
            call()


@pytest.mark.usefixtures("unchecked_shapes")
def test_arguments_of_the_wrong_kind() -> None:
    model, pairs = _mlp(), [(_inputs(), _LABELS)]
    wrong: list[tuple[type[Exception], str, Callable[..., Any], dict[str, Any]]] = [
        (TypeError, "forward='x' is a str: expected a function", measure, {"forward": "x"}),
        (TypeError, "batch=3 is a int: expected a function", measure, {"batch": 3}),
        (TypeError, "classifier is a Linear: pass the layer's dotted name", measure, {"classifier": model[2]}),
        (TypeError, "classifier is a int: pass the layer's dotted name", measure, {"classifier": 2}),
        (TypeError, "layers names a int", measure, {"layers": [0]}),
        (ValueError, "device='gpu' is not available here", measure, {"device": "gpu"}),
        (TypeError, "target is a str: expected what ufm.target_geometry", measure, {"target": "etf"}),
    ]
    for kind, message, function, options in wrong:
        with pytest.raises(kind, match=message):
            function(model, pairs, **options)
    others: list[tuple[type[Exception], str, Callable[[], Any]]] = [
        (TypeError, "model is a str, .* load its weights first", lambda: find_classifier("resnet")),  # type: ignore[arg-type]
        (TypeError, "model is a OrderedDict.*load_state_dict", lambda: measure(model.state_dict(), pairs)),
        (TypeError, "model is a PosixPath.*load_state_dict", lambda: measure(Path("weights.pt"), pairs)),
        (TypeError, "model is a function.*pass the module itself", lambda: measure(lambda x: x, pairs)),
        (TypeError, "masked array", lambda: measure_features(np.ma.masked_less(_inputs().numpy(), 0), _LABELS)),
        (ValueError, "more than any machine has", lambda: ClassStatistics(10**9, 10**9)),
        (ValueError, "meta device", lambda: ClassStatistics(3, 8).to("meta")),
        (ValueError, "meta device", lambda: ClassStatistics(3, 8, device="meta").update(_inputs(), _LABELS)),
    ]
    for kind, message, call in others:
        with pytest.raises(kind, match=message):
            call()
    with torch.device("meta"):
        assert "scale=unknown" in repr(fix_classifier(_mlp()))


def test_a_target_reaches_the_measures() -> None:
    model, inputs = _mlp(), _inputs()
    target = ufm.target_geometry([20, 20, 20], 1e-3, 1e-3)
    found = measure(model, [(inputs, _LABELS)], target=target).metrics
    with torch.no_grad():
        statistics = ClassStatistics(3, 6)
        statistics.update(model[:2](inputs), _LABELS)
        expected = collapse_metrics(statistics, model[2].weight, model[2].bias, target=target)
    assert found.geometry_weights == pytest.approx(expected.geometry_weights, rel=1e-5)
    assert found.geometry_duality == pytest.approx(expected.geometry_duality, rel=1e-5)
