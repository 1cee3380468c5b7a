"""The fixed head against nn.Linear that holds the same frame."""

import copy
import io
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from neuralcollapse import ETFClassifier, PrototypeClassifier, etf_distance, simplex_etf


@settings(deadline=None, max_examples=60)
@given(
    classes=st.integers(2, 40),
    extra=st.integers(-1, 20),
    batch=st.lists(st.integers(1, 5), min_size=0, max_size=2),
    rotation=st.sampled_from(["canonical", "random"]),
    scale=st.floats(0.1, 10),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_equals_linear(classes, extra, batch, rotation, scale, dtype):
    width = max(1, classes + extra)
    head = ETFClassifier(width, classes, rotation=rotation, scale=scale, learn_scale=True, dtype=dtype)
    linear = nn.Linear(width, classes, dtype=dtype)
    with torch.no_grad():
        linear.bias.copy_(torch.randn(classes))
        head.bias.copy_(linear.bias)
        frame = head.weight if rotation == "random" else scale * simplex_etf(classes, width, dtype=dtype)
        linear.weight.copy_(frame)
    features = torch.randn(*batch, width, dtype=dtype)
    ours, theirs = features.clone().requires_grad_(), features.clone().requires_grad_()
    upstream = torch.randn(*batch, classes, dtype=dtype)
    left, right = head(ours), linear(theirs)
    left.backward(upstream)
    right.backward(upstream)
    bound = 1e-6 if dtype == torch.float32 else 1e-12
    for mine, other in ((left, right), (ours.grad, theirs.grad), (head.bias.grad, linear.bias.grad)):
        torch.testing.assert_close(mine, other, rtol=bound, atol=bound * float(1 + other.detach().abs().max()))
    # dL/ds = <upstream, (logits - b) / s>
    wanted = (upstream * (right - linear.bias)).sum() / scale
    torch.testing.assert_close(head.scale.grad, wanted, rtol=100 * bound, atol=1e3 * bound)


@pytest.mark.parametrize(("width", "rotation"), [(9, "canonical"), (10, "canonical"), (64, "random")])
def test_weight_is_a_simplex_etf_and_no_parameter(width, rotation):
    head = ETFClassifier(width, 10, rotation=rotation, scale=2.5, dtype=torch.float64)
    assert etf_distance(head.weight) < 1e-12
    torch.testing.assert_close(head.weight.norm(dim=1), torch.full((10,), 2.5, dtype=torch.float64))
    assert [name for name, _ in head.named_parameters()] == ["bias"]


def test_state_is_kilobytes_and_survives_save_load_and_deepcopy():
    head = ETFClassifier(10_000, 1_000)
    file = io.BytesIO()
    torch.save(head.state_dict(), file)
    assert file.tell() < 10_000
    for kind in ("canonical", "random"):
        old, new = ETFClassifier(20, 8, rotation=kind, scale=3.0), ETFClassifier(20, 8, rotation=kind)
        new.load_state_dict(old.state_dict())
        x = torch.randn(5, 20)
        assert torch.equal(new(x), old(x))
        assert torch.equal(copy.deepcopy(old)(x), old(x))


@pytest.mark.parametrize("width", [9, 30])
@pytest.mark.parametrize("rotation", ["canonical", "random"])
def test_half_precision_and_autocast(width, rotation):
    head = ETFClassifier(width, 10, rotation=rotation)
    x = torch.randn(6, width)
    exact = head(x)
    half = copy.deepcopy(head).bfloat16()(x.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), exact, atol=0.06, rtol=0.02)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(head(x.bfloat16()).float(), exact, atol=0.06, rtol=0.02)


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("width", [9, 30])
def test_export(width):
    head = ETFClassifier(width, 10).eval()
    x = torch.randn(4, width)
    torch.testing.assert_close(torch.export.export(head, (x,)).module()(x), head(x))


@pytest.mark.usefixtures("unchecked_shapes")
def test_compile():
    head = ETFClassifier(30, 10)
    x = torch.randn(4, 30, requires_grad=True)
    compiled = torch.compile(head, backend="aot_eager", fullgraph=True)
    compiled(x).square().sum().backward()
    y = x.detach().clone().requires_grad_()
    head(y).square().sum().backward()
    torch.testing.assert_close(x.grad, y.grad)


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        ((5, 10), {}, ["in_features=5", "10 classes", "set_feature_dim", "nn.Linear"]),
        ((5, 1), {}, ["num_classes=1"]),
        ((5, 3), {"rotation": "canonic"}, ["rotation='canonic'", "random"]),
        ((5, 3), {"scale": 0.0}, ["scale=0.0"]),
        ((5, 3), {"scale": float("nan")}, ["scale=nan"]),
    ],
)
@pytest.mark.usefixtures("unchecked_shapes")
def test_bad_input(arguments, options, words):
    with pytest.raises(ValueError, match=".*".join(re.escape(word) for word in words)):
        ETFClassifier(*arguments, **options)


def test_wrong_width_of_features():
    with pytest.raises(ValueError, match="in_features=5"):
        ETFClassifier(5, 3)(torch.randn(2, 6))


def test_prototypes_are_the_nearest_mean():
    means = torch.randn(7, 5) + 1000
    x = means[torch.randint(7, (50,))] + 0.1 * torch.randn(50, 5)
    logits = PrototypeClassifier(means)(x)
    distances = torch.cdist(x.double(), means.double()).square() / -2
    assert torch.equal(logits.argmax(1), distances.argmax(1))
    torch.testing.assert_close(logits.double(), distances, rtol=1e-3, atol=1e-2)
    with pytest.raises(ValueError, match="finite K x d"):
        PrototypeClassifier(torch.tensor([[float("nan")], [1.0]]))


@pytest.mark.parametrize("spread", [1.0, 24.0, 100.0])
@pytest.mark.parametrize(("dtype", "autocast"), [
    (torch.float16, None), (torch.bfloat16, None), (torch.float32, torch.bfloat16), (torch.float32, torch.float16),
])  # fmt: skip
def test_prototypes_in_half_precision_are_the_nearest_mean(spread, dtype, autocast):
    """Squares of half precision end at 65504, a distance of 256."""
    torch.manual_seed(0)
    means = (spread * torch.rand(10, 2048)).to(autocast or dtype)
    labels = torch.arange(200) % 10
    x = (means[labels].float() + spread / 10 * torch.randn(200, 2048)).to(autocast or dtype)
    head = PrototypeClassifier(means.to(dtype), dtype=dtype)
    with torch.autocast("cpu", autocast, enabled=autocast is not None):
        logits = head(x)
    assert logits.dtype == torch.float32
    distances = torch.cdist(x.double(), means.double()).square() / -2
    torch.testing.assert_close(logits.double(), distances, rtol=1e-4, atol=1e-3)
    assert torch.equal(logits.argmax(1), labels)
