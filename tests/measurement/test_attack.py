"""Attacked inputs, against closed forms and against attacks written by hand."""

from __future__ import annotations

import copy
import dataclasses
import json

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from neuralcollapse import Attack, Moments, measure, measure_features
from neuralcollapse.geometry.angles import class_mean_angles

LABELS = torch.arange(60) % 3
INPUTS = torch.rand(60, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
INPUTS = (INPUTS + 0.3 * nn.functional.one_hot(LABELS, 8)).clamp(0, 1)


def linear() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(8, 3, dtype=torch.float64)


def network() -> nn.Sequential:
    torch.manual_seed(1)
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(inplace=True),
                          nn.Dropout(0.5), nn.Linear(16, 6), nn.Tanh(), nn.Linear(6, 3)).double()  # fmt: skip
    model[2].running_mean.normal_()
    return model


def batches() -> list[tuple[Tensor, Tensor]]:
    return list(zip(INPUTS.split(17), LABELS.split(17), strict=True))


def pgd(model: nn.Module, epsilon: float, steps: int, step: float, low: float, high: float) -> Tensor:
    """Projected gradient descent of the whole data at once, written out."""
    model = copy.deepcopy(model).eval()
    found = INPUTS.clone()
    for _ in range(steps):
        leaf = found.clone().requires_grad_()
        cross_entropy(model(leaf.clone()), LABELS).backward()
        found = found + step * leaf.grad.sign()
        found = torch.min(torch.max(found, INPUTS - epsilon), INPUTS + epsilon).clamp(low, high)
    return found


def features_of(model: nn.Sequential, inputs: Tensor) -> tuple[Tensor, Tensor]:
    model = copy.deepcopy(model).eval()
    with torch.no_grad():
        return model[:-1](inputs.clone()), model(inputs.clone())


def assert_measured(report, model: nn.Sequential, inputs: Tensor) -> None:
    clean, _ = features_of(model, INPUTS)
    features, logits = features_of(model, inputs)
    head = model[-1]
    expected = measure_features(features, LABELS, head.weight.detach(), head.bias.detach()).to_dict()
    found = report.attack.to_dict()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-9, abs=1e-12), name
    assert report.attack.accuracy == pytest.approx(float((logits.argmax(1) == LABELS).double().mean()))
    means, moved = (np.stack([h[k == LABELS].mean(0) for k in range(3)]) for h in (clean.numpy(), features.numpy()))
    a, b = means - means.mean(0), moved - means.mean(0)
    cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    np.testing.assert_allclose(report.attack.angles, np.degrees(np.arccos(cosines)), rtol=1e-6)
    assert found["attack_angle"] == pytest.approx(np.degrees(np.arccos(cosines)).mean(), rel=1e-6)


def test_fgsm_of_a_linear_softmax_has_a_closed_form() -> None:
    model = linear()
    logits = INPUTS.numpy() @ model.weight.detach().numpy().T + model.bias.detach().numpy()
    shares = np.exp(logits - logits.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    moved = INPUTS.numpy() + 0.07 * np.sign((shares - np.eye(3)[LABELS.numpy()]) @ model.weight.detach().numpy())
    report = measure(nn.Sequential(nn.Flatten(), model), batches(), attack="fgsm", epsilon=0.07)
    expected = Moments.from_features(torch.from_numpy(moved), LABELS)
    torch.testing.assert_close(report.attack.moments.means, expected.means, rtol=1e-12, atol=1e-12)
    assert report.attack.metrics.nc1 == pytest.approx(measure_features(torch.from_numpy(moved), LABELS).nc1, rel=1e-9)
    assert report.attack.accuracy <= report.accuracy


@pytest.mark.parametrize("ncc", [True, False])
def test_fgsm_of_a_network(ncc: bool) -> None:
    model = network()
    report = measure(model, batches(), attack="fgsm", epsilon=0.1, ncc=ncc)
    if ncc:
        assert_measured(report, model, pgd(model, 0.1, 1, 0.1, -torch.inf, torch.inf))
    plain = measure(model, batches(), ncc=ncc)
    assert report.to_dict() == plain.to_dict()  # the clean measures are those without an attack


def test_pgd_of_a_network_by_hand() -> None:
    model = network()
    report = measure(model, batches(), attack="pgd", epsilon=0.1)
    assert_measured(report, model, pgd(model, 0.1, 10, 0.025, -torch.inf, torch.inf))
    chosen = Attack("pgd", 0.1, steps=3, step=0.08, bounds=(0, 1))
    report = measure(model, batches(), attack=chosen, layers=["1"])
    assert_measured(report, model, pgd(model, 0.1, 3, 0.08, 0, 1))
    assert report.layers["1"].nc1 == measure(model, batches(), layers=["1"]).layers["1"].nc1


def test_attacked_inputs_stay_in_the_cube_and_the_bounds() -> None:
    seen = []

    class Watching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x.detach().clone())
            return x

    model = nn.Sequential(Watching(), *network())
    channels = torch.full((8,), 0.02, dtype=torch.float64), torch.ones(8, dtype=torch.float64)
    inputs = INPUTS.clamp(min=0.02)
    attack = Attack("pgd", 0.2, steps=4, bounds=channels, random_start=True)
    state = torch.get_rng_state()
    measure(model, [(inputs, LABELS)], attack=attack)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(seen[0], inputs)
    assert len(seen) == 6
    assert not torch.equal(seen[1], inputs)  # the random start
    for moved in seen[1:]:
        assert float((moved - inputs).abs().max()) <= 0.2 + 1e-12
        assert 0.02 <= float(moved.min()) <= float(moved.max()) <= 1


def test_the_model_is_left_as_it_was() -> None:
    model = network()
    model.train()
    model[1].weight.requires_grad_(False)
    model[5].bias.grad = torch.ones(6, dtype=torch.float64)
    before, wanted = copy.deepcopy(model.state_dict()), [p.requires_grad for p in model.parameters()]
    inputs = INPUTS.clone()
    measure(model, [(inputs, LABELS)], attack="pgd", epsilon=0.1)
    assert all(module.training for module in model.modules())
    assert [p.requires_grad for p in model.parameters()] == wanted
    assert [name for name, p in model.named_parameters() if p.grad is not None] == ["5.bias"]
    assert bool((model[5].bias.grad == 1).all())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not inputs.requires_grad


def test_other_batches_and_modes() -> None:
    model = network()

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = model

        def forward(self, pixel_values: Tensor, index: Tensor) -> Tensor:
            return self.net(pixel_values + 0 * index[:, None])

    expected = measure(model, batches(), attack="fgsm", epsilon=0.1).attack.to_dict()
    named = [{"pixel_values": x, "index": torch.arange(len(x)), "labels": y} for x, y in batches()]
    with torch.inference_mode():
        given = [{name: part.clone() for name, part in batch.items()} for batch in named]
        found = measure(Named(), given, attack="fgsm", epsilon=0.1).attack.to_dict()
    assert found == pytest.approx(expected)
    single = measure(copy.deepcopy(model).float(), batches(), attack="fgsm", epsilon=0.1).attack
    assert single.metrics.nc1 == pytest.approx(expected["nc1"], rel=1e-3)


@pytest.mark.parametrize("between", [nn.Identity, nn.ReLU])
def test_a_head_that_runs_on_maps(between: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 5, 3), nn.ReLU(), nn.Conv2d(5, 3, 1), between(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    x = torch.randn(30, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    report = measure(model, [(x, LABELS[:30])], attack="fgsm", epsilon=0.3)
    leaf = x.clone().requires_grad_()
    cross_entropy(model(leaf), LABELS[:30]).backward()
    with torch.no_grad():
        features = model[:2](x + 0.3 * leaf.grad.sign()).mean((2, 3))
    assert report.attack.metrics.nc1 == pytest.approx(measure_features(features, LABELS[:30]).nc1, rel=1e-3)


def test_the_report_shows_the_attack() -> None:
    report = measure(network(), batches(), attack="pgd", epsilon=0.1, layers=["1"])
    assert "pgd ε=0.1" in str(report)
    (row,) = (line for line in str(report).splitlines() if "attack_angle" in line)
    assert f"{report.attack.mean_angle:.4g}" in row
    assert "↓ 0" in row
    assert f"leaves {report.attack.accuracy:.2%} of the decisions right, from {report.accuracy:.2%}" in report.explain()
    found = json.loads(report.to_json())["attack"]
    assert (found["kind"], found["epsilon"], found["nc1"]) == ("pgd", 0.1, report.attack.metrics.nc1)
    assert list(report.plot(by_layer="nc1").data[0].x) == ["1", "7"]
    assert "attack" not in json.loads(dataclasses.replace(report, attack=None).to_json())


class Detached(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.detach())


TOKENS = torch.arange(60)[:, None].repeat(1, 8)
REFUSED = {
    "tokens": (nn.Sequential(nn.Embedding(60, 4), nn.Flatten(), nn.Linear(32, 3)), TOKENS, {},
               r"these hold inputs of torch.int64: .*do not attack token numbers"),
    "no size": (network(), INPUTS, {"epsilon": None}, "attack='fgsm' needs epsilon="),
    "a negative size": (network(), INPUTS, {"epsilon": -0.1}, "epsilon=-0.1 must be positive"),
    "unknown": (network(), INPUTS, {"attack": "cw"}, "attack='cw' is unknown: choose 'fgsm', 'pgd'"),
    "a size alone": (network(), INPUTS, {"attack": None}, "need attack="),
    "two sizes": (network(), INPUTS, {"attack": Attack("pgd", 0.1)}, r"the Attack\(...\) holds them already"),
    "bounds turned round": (network(), INPUTS, {"bounds": (1, 0)}, "a lower and an upper bound"),
    "bounds that the inputs exceed": (network(), INPUTS, {"bounds": (0.4, 0.6)}, r"outside bounds=\(0.4, 0.6\): give"),
    "bounds of another shape": (network(), INPUTS, {"bounds": (torch.zeros(5), torch.ones(5))}, "do not broadcast"),
    "no gradient": (Detached(), INPUTS, {}, "the model gives none: it runs under no_grad"),
    "features": (network(), INPUTS, {"features_only": True}, "leave out features_only="),
    "another task": (network(), INPUTS, {"task": "multilabel"}, "leave out task="),
    "two real inputs": (network(), (INPUTS, INPUTS), {}, "one tensor of real inputs, and a batch holds 2"),
}  # fmt: skip


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_attacked_is_refused_with_a_sentence(kind: str) -> None:
    model, inputs, options, message = REFUSED[kind]
    forward = (lambda model, x: model(x[0])) if isinstance(inputs, tuple) else None
    with pytest.raises(ValueError, match=message):
        measure(model, [(inputs, LABELS)], forward=forward, **{"attack": "fgsm", "epsilon": 0.1, **options})


def test_labels_are_checked_before_the_attack() -> None:
    with pytest.raises(ValueError, match="label 5 is out of range"):
        measure(network(), [(INPUTS, LABELS + 3)], attack="fgsm", epsilon=0.1)


def test_means_of_other_classes_have_no_angles() -> None:
    moments = Moments.from_features(INPUTS, LABELS)
    with pytest.raises(ValueError, match="they must be of the same classes"):
        class_mean_angles(moments, Moments.from_features(INPUTS, LABELS, num_classes=4))
    assert float(class_mean_angles(moments, moments).max()) == 0


class Checkpointed(nn.Module):
    """Its inner layers run again when it is differentiated."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.fc = nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 3)
        self.saves = True

    def inner(self, x: Tensor) -> Tensor:
        return self.b(self.a(x).relu()).relu()

    def forward(self, x: Tensor) -> Tensor:
        from torch.utils.checkpoint import checkpoint

        return self.fc(checkpoint(self.inner, x, use_reentrant=False) if self.saves else self.inner(x))


@pytest.mark.parametrize("layers", [["a"], ["a", "b"], "all"])
@pytest.mark.parametrize("attack", ["fgsm", "pgd"])
def test_layers_that_an_attack_runs_again_are_those_of_the_clean_inputs(layers: object, attack: str) -> None:
    labels = torch.arange(60) % 3
    x = torch.randn(60, 8, generator=torch.Generator().manual_seed(0)) + 2 * nn.functional.one_hot(labels, 8)
    batches = list(zip(x.split(20), labels.split(20), strict=True))
    model = Checkpointed()
    options = {"layers": layers, "attack": attack, "epsilon": 0.1}
    found = measure(model, batches, **options)
    model.saves = False
    expected, clean = measure(model, batches, **options), measure(model, batches, layers=layers)
    for name, metrics in clean.layers.items():
        assert found.layers[name].nc1 == metrics.nc1
    assert found.layers.keys() == clean.layers.keys()
    assert found.attack.to_dict() == pytest.approx(expected.attack.to_dict(), rel=1e-5)


def test_each_size_is_refused_by_what_it_means() -> None:
    with pytest.raises(ValueError, match="epsilon=0 must be positive and finite: it is the largest change of an entry"):
        Attack("pgd", 0)
    with pytest.raises(ValueError, match="step=-1 must be positive and finite: it is the length of a step of PGD"):
        Attack("pgd", 0.1, step=-1)
