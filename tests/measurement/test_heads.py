"""The head's own features, logits and weight, whatever computes them, against matrices formed by hand."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize
from torch.nn.utils import parametrizations, prune

from neuralcollapse import (
    ETFClassifier,
    PrototypeClassifier,
    extract_features,
    find_classifier,
    fix_classifier,
    measure,
    use_prototypes,
)
from tests.cases import oracle

LABELS = torch.arange(60) % 3
INPUTS = torch.randn(60, 8, generator=torch.Generator().manual_seed(0)) + LABELS[:, None]
BATCHES = [(INPUTS[:25], LABELS[:25]), (INPUTS[25:], LABELS[25:])]


def trunk() -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 6), nn.ReLU())


def nc2(weight: Tensor) -> float:
    return oracle(torch.randn(60, 6), LABELS, weight.detach().flatten(1), torch.zeros(3))["nc2"]


# ---- weights that are computed ---------------------------------------------------------------------

COMPUTED = {
    "weight_norm": torch.nn.utils.weight_norm,
    "spectral_norm": torch.nn.utils.spectral_norm,
    "new weight_norm": parametrizations.weight_norm,
    "new spectral_norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "pruning": lambda layer: prune.random_unstructured(layer, "weight", 0.4),
}


@pytest.mark.parametrize("kind", COMPUTED)
def test_the_weight_is_the_one_that_the_forward_pass_computes(kind: str) -> None:
    model = nn.Sequential(*trunk(), COMPUTED[kind](nn.Linear(6, 3)))
    if kind != "orthogonal":  # whose parameter must stay orthogonal
        model.load_state_dict({name: torch.rand_like(tensor) + 0.1 for name, tensor in model.state_dict().items()})
    first, second = measure(model, BATCHES), measure(model, BATCHES)
    model.eval()
    model(INPUTS)
    assert first.metrics.nc2 == second.metrics.nc2 == pytest.approx(nc2(model[2].weight), rel=1e-5)


class PeftLinear(nn.Module):
    """The structure of peft's LoRA layers."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.base_layer = layer
        self.lora_dropout = nn.ModuleDict({"default": nn.Dropout(0.5)})
        self.lora_A = nn.ModuleDict({"default": nn.Linear(layer.in_features, 2, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(2, layer.out_features, bias=False)})
        self.scaling = {"default": 2.0}

    def forward(self, x: Tensor) -> Tensor:
        added = self.lora_B["default"](self.lora_A["default"](self.lora_dropout["default"](x)))
        return self.base_layer(x) + self.scaling["default"] * added

    def merged(self) -> Tensor:
        return self.base_layer.weight + 2 * self.lora_B["default"].weight @ self.lora_A["default"].weight


class OwnLora(nn.Module):
    """Somebody's own, with names of their own."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = layer
        self.down, self.up = nn.Linear(layer.in_features, 2, bias=False), nn.Linear(2, layer.out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + 0.5 * self.up(self.down(x))

    def merged(self) -> Tensor:
        return self.layer.weight + 0.5 * self.up.weight @ self.down.weight


class LoraLinear(nn.Linear):
    """The structure of loralib: a Linear with two more parameters."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer.in_features, layer.out_features)
        self.lora_A, self.lora_B = nn.Parameter(torch.randn(2, 6)), nn.Parameter(torch.randn(3, 2))

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.merged(), self.bias)

    def merged(self) -> Tensor:
        return self.weight + self.lora_B @ self.lora_A


class Tempered(nn.Linear):
    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer.in_features, layer.out_features)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * torch.arange(1, 7))

    def merged(self) -> Tensor:
        return self.weight * torch.arange(1, 7)


@pytest.mark.parametrize("kind", [PeftLinear, OwnLora, LoraLinear, Tempered])
def test_a_layer_that_is_more_than_its_weight(kind: type) -> None:
    model = nn.Sequential(*trunk(), kind(nn.Linear(6, 3)))
    report = measure(model, BATCHES)
    assert report.classifier == "2"
    torch.testing.assert_close(report.weight.float(), model[2].merged().detach())
    assert report.metrics.nc2 == pytest.approx(nc2(model[2].merged()), rel=1e-5)


@pytest.mark.parametrize("name", ["2", "2.base_layer", "2.lora_B.default"])
def test_part_of_an_adapted_layer_stands_for_the_whole(name: str) -> None:
    model = nn.Sequential(*trunk(), PeftLinear(nn.Linear(6, 3)))
    assert find_classifier(model, name) == ("2", model[2])
    with pytest.raises(ValueError, match="carries an adapter"):
        fix_classifier(model)


def test_peft_s_trained_copy_of_a_head_is_measured() -> None:
    class ModulesToSaveWrapper(nn.Module):
        active_adapter = "default"

        def __init__(self) -> None:
            super().__init__()
            self.original_module = nn.Linear(6, 3)
            self.modules_to_save = nn.ModuleDict({"default": nn.Linear(6, 3)})

        def forward(self, x: Tensor) -> Tensor:
            return self.modules_to_save["default"](x)

    model = nn.Sequential(*trunk(), ModulesToSaveWrapper())
    assert measure(model, BATCHES).metrics.nc2 == pytest.approx(
        nc2(model[2].modules_to_save["default"].weight), rel=1e-5
    )


def test_a_head_that_is_not_affine_has_no_weight() -> None:
    class Cosine(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return linear(normalize(x), normalize(self.weight))

    model = nn.Sequential(*trunk(), Cosine(6, 3))
    with pytest.raises(ValueError, match=r"a Cosine, is not an affine map.*features_only=True"):
        measure(model, BATCHES)
    assert measure(model, BATCHES, features_only=True).metrics.nc2 is None


def test_a_head_that_is_affine_on_small_features_alone_has_no_weight() -> None:
    class Clamped(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).clamp(-10, 10)

    model = nn.Sequential(*trunk(), Clamped(6, 3))
    large = [(50 * x, y) for x, y in BATCHES]
    assert model(large[0][0]).abs().max() == 10
    with pytest.raises(ValueError, match=r"a Clamped, is not an affine map"):
        measure(model, large)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_prototypes_in_half_precision_are_measured(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    means = (20 * torch.rand(10, 2048)).to(dtype)
    labels = torch.arange(60) % 10
    x = (means[labels].float() + 0.5 * torch.randn(60, 2048)).to(dtype)
    report = measure(use_prototypes(nn.Sequential(nn.Identity(), nn.Linear(2048, 10)).to(dtype), means), [(x, labels)])
    exact = means.double() - means.double().mean(0)
    assert report.accuracy == 1
    torch.testing.assert_close(report.weight.double(), exact, rtol=1e-5, atol=1e-4)


def test_a_head_without_bias_has_no_spread_of_it() -> None:
    report = measure(nn.Sequential(*trunk(), nn.Linear(6, 3, bias=False)), BATCHES)
    assert report.bias is None
    assert report.metrics.bias_spread is None


def test_fixed_and_tied_heads() -> None:
    assert measure(nn.Sequential(*trunk(), ETFClassifier(6, 3)), BATCHES).metrics.nc2 == pytest.approx(0, abs=1e-6)
    tied = nn.Sequential(nn.Linear(8, 6), nn.Linear(6, 8), nn.Linear(8, 6), nn.Linear(6, 8))
    tied[3].weight = tied[1].weight
    assert measure(tied, [(INPUTS, torch.arange(60) % 8)]).metrics.nc2 is not None


# ---- logits ----------------------------------------------------------------------------------------


@dataclass
class Answer:
    main: Tensor
    aux: Tensor


OUTPUTS = {
    "tuple": lambda main, aux: (main, aux),
    "list": lambda main, aux: [main, aux],
    "dict": lambda main, aux: {"main": main, "aux": aux},
    "dataclass": lambda main, aux: Answer(main, aux),
    "nested": lambda main, aux: {"logits": main, "extra": (main, [aux])},
}


class TwoHeads(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.net = trunk()
        self.main, self.aux = nn.Linear(6, 3), nn.Linear(6, 3)
        self.kind = kind

    def forward(self, x: Tensor) -> object:
        return OUTPUTS[self.kind](self.main(self.net(x)), self.aux(self.net(x)))


@pytest.mark.parametrize("kind", OUTPUTS)
def test_logits_are_those_of_the_head_that_was_chosen(kind: str) -> None:
    model = TwoHeads(kind)
    with torch.no_grad():
        features = model.net(INPUTS)
    for name in ("main", "aux"):
        report = measure(model, BATCHES, classifier=name)
        decisions = model.get_submodule(name)(features).argmax(1)
        means = torch.stack([features[label == LABELS].mean(0) for label in range(3)])
        nearest = torch.cdist(features, means).argmin(1)
        assert report.accuracy == pytest.approx(float((decisions == LABELS).float().mean()))
        assert report.ncc_mismatch == pytest.approx(float((decisions != nearest).float().mean()))
    with pytest.raises(ValueError, match="ambiguous classifier"):
        measure(model, BATCHES)


@pytest.mark.parametrize("where", ["in the head", "after it"])
def test_nan_logits_are_refused(where: str) -> None:
    class Spoilt(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.where(torch.arange(len(x))[:, None] == 3, torch.nan, x)

    model = nn.Sequential(*trunk(), nn.Linear(6, 3), Spoilt() if where == "after it" else nn.Identity())
    if where == "in the head":
        with torch.no_grad():
            model[2].bias[1] = torch.nan
    with pytest.raises(ValueError, match="logits hold NaN"):
        measure(model, BATCHES)


# ---- heads at many positions -----------------------------------------------------------------------


class Positions(nn.Module):
    def __init__(self, choice: str) -> None:
        super().__init__()
        self.body, self.score = nn.Linear(8, 6), nn.Linear(6, 3)
        self.choice = choice

    def choose(self, found: Tensor) -> Tensor:
        if self.choice == "mean":
            return found.mean(1)
        if self.choice == "ragged":
            return found[torch.arange(len(found)), torch.arange(len(found)) % 5]
        return found[:, {"first": 0, "last": -1, "third": 2}[self.choice]]

    def forward(self, x: Tensor) -> Tensor:
        return self.choose(self.score(self.body(x)))


@pytest.mark.parametrize("choice", ["first", "last", "third", "ragged", "mean"])
def test_heads_that_run_at_every_position(choice: str) -> None:
    model, x = Positions(choice), torch.randn(60, 5, 8) + LABELS[:, None, None]
    features, labels, logits = extract_features(model, [(x, LABELS)])
    with torch.no_grad():
        torch.testing.assert_close(features, model.choose(model.body(x)))
        torch.testing.assert_close(logits, model(x), rtol=1e-4, atol=1e-5)
    assert torch.equal(labels, LABELS)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("fixed", [False, True])
def test_pointwise_convolutions_as_heads(dims: int, fixed: bool) -> None:
    convolution, pool = getattr(nn, f"Conv{dims}d"), getattr(nn, f"AdaptiveAvgPool{dims}d")
    model = nn.Sequential(convolution(1, 6, 3), nn.ReLU(), convolution(6, 3, 1), nn.ReLU(), pool(1), nn.Flatten())
    if fixed:
        fix_classifier(model)
    x = torch.randn(60, 1, *[5] * dims) + LABELS.reshape(60, *[1] * (dims + 1))
    report = measure(model, [(x, LABELS)])
    with torch.no_grad():
        features, decisions = model[:2](x).flatten(2).mean(2), model(x).argmax(1)
    assert report.classifier == "2"
    assert report.metrics.nc1 == pytest.approx(oracle(features, LABELS)["nc1"], rel=1e-4)
    assert report.accuracy == pytest.approx(float((decisions == LABELS).float().mean()))


def test_gpt2_reads_the_last_token_that_is_no_padding() -> None:
    transformers = pytest.importorskip("transformers")
    options = {"vocab_size": 40, "n_embd": 16, "n_layer": 1, "n_head": 2, "num_labels": 3, "pad_token_id": 0}
    model = transformers.GPT2ForSequenceClassification(transformers.GPT2Config(**options)).eval()
    lengths = torch.randint(2, 8, (30,))
    tokens = torch.randint(1, 40, (30, 8)) * (torch.arange(8) < lengths[:, None])
    mask, labels = (tokens != 0).long(), torch.arange(30) % 3
    with torch.no_grad():
        states = model.transformer(tokens, attention_mask=mask).last_hidden_state
        decisions = model(tokens, attention_mask=mask).logits.argmax(1)
    expected = oracle(states[torch.arange(30), lengths - 1], labels)["nc1"]
    for size in (1, 30):
        parts = zip(tokens.split(size), mask.split(size), labels.split(size), strict=True)
        report = measure(model, [{"input_ids": t, "attention_mask": m, "labels": y} for t, m, y in parts])
        assert report.metrics.nc1 == pytest.approx(expected, rel=1e-3)
        assert report.accuracy == pytest.approx(float((decisions == labels).float().mean()))


# ---- models inside others, and without a head ------------------------------------------------------


def test_compiled_and_replicated_models_are_measured_inside() -> None:
    plain = nn.Sequential(*trunk(), nn.Linear(6, 3))
    expected = measure(plain, BATCHES, layers=["0"])
    compiled, in_place = torch.compile(plain, backend="eager"), nn.Sequential(*plain)
    compiled(INPUTS)
    in_place.compile(backend="eager")
    in_place(INPUTS)
    part = nn.Sequential(torch.compile(plain[:2], backend="eager"), plain[2])
    part(INPUTS)
    for model, layer in ((compiled, "0"), (in_place, "0"), (nn.DataParallel(plain), "module.0"), (part, "0.0")):
        found = measure(model, BATCHES, layers=[layer])
        assert found.metrics == expected.metrics
        assert found.layers[layer] == expected.layers["0"]


@pytest.mark.parametrize("kind", ["timm", "identity", "base", "trunk"])
def test_models_without_a_classifier_say_so_and_give_features(kind: str) -> None:
    x = torch.randn(60, 3, 32, 32) + LABELS[:, None, None, None]
    if kind == "timm":
        model = pytest.importorskip("timm").create_model("resnet18", pretrained=False, num_classes=0)
    elif kind == "identity":
        model = pytest.importorskip("torchvision").models.resnet18()
        model.fc = nn.Identity()
    elif kind == "base":
        transformers = pytest.importorskip("transformers")
        model = transformers.ResNetModel(transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1]))
    else:
        model = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.Conv2d(4, 6, 1), nn.BatchNorm2d(6), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
    with pytest.raises(ValueError, match="no classifier"):
        measure(model, [(x, LABELS)], allow_missing=True)
    report = measure(model, [(x, LABELS)], features_only=True)
    with torch.no_grad():
        output = model.eval()(x)
    features = output.pooler_output.flatten(1) if kind == "base" else output
    assert report.metrics.nc1 == pytest.approx(oracle(features, LABELS)["nc1"], rel=1e-3)
    assert report.metrics.nc2 is None
    assert report.accuracy is None
    assert "accuracy" not in str(report)


def test_features_alone_of_a_model_with_a_classifier_and_of_its_trunk() -> None:
    model = nn.Sequential(*trunk(), nn.Linear(6, 3))
    expected = measure(model, BATCHES).metrics.nc1
    for part in (model, model[:2]):
        for ncc in (True, False):  # held, and streamed without knowing the number of classes
            found = measure(part, BATCHES, features_only=True, ncc=ncc)
            assert found.metrics.nc1 == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ValueError, match="label 1000000000000 implies"):
        measure(model[:2], [(INPUTS, LABELS * 10**12 // 2)], features_only=True)


# ---- heads whose output is not W h + b with the weight that they hold ------------------------------


def two_layers(head: nn.Module | None = None) -> nn.Sequential:
    torch.manual_seed(2)
    plain = nn.Linear(6, 3)
    if head is not None:
        head.load_state_dict(plain.state_dict())
    return nn.Sequential(*trunk(), plain if head is None else head)


def five_times(kind: str) -> nn.Sequential:
    model = two_layers(Fivefold(6, 3) if kind == "subclass" else None)
    head = model[-1]
    if kind == "hook":
        head.register_forward_hook(lambda module, inputs, output: 5 * output)
    if kind == "patched":
        head.forward = lambda x: 5 * linear(x, head.weight, head.bias)
    return model


class Fivefold(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return 5 * super().forward(x)


@pytest.mark.parametrize("kind", ["hook", "patched", "subclass"])
def test_the_weight_measured_is_that_which_gives_the_logits(kind: str) -> None:
    plain = two_layers()
    weight, bias = (5 * part.detach() for part in (plain[-1].weight, plain[-1].bias))
    report = measure(five_times(kind), BATCHES)
    torch.testing.assert_close(report.weight.float(), weight)
    features = plain[:-1](INPUTS).detach()
    expected = oracle(features, LABELS, weight, bias)
    for name in ("nc2", "nc3", "nc4"):
        assert getattr(report.metrics, name) == pytest.approx(expected[name], rel=1e-4)
    torch.testing.assert_close(extract_features(five_times(kind), BATCHES).logits, linear(features, weight, bias))


def test_hooks_that_only_look_change_nothing_and_see_nothing_but_data() -> None:
    model, seen = two_layers(), []
    model[-1].register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    assert measure(model, BATCHES).metrics == measure(two_layers(), BATCHES).metrics
    assert seen == [25, 35]


def test_a_patched_head_that_is_not_affine_is_refused() -> None:
    model = two_layers()
    head = model[-1]
    head.forward = lambda x: linear(normalize(x), normalize(head.weight))
    with pytest.raises(ValueError, match="not an affine map"):
        measure(model, BATCHES)


def test_arguments_of_a_head_are_known_by_name() -> None:
    class Scaled(nn.Linear):
        def forward(self, input: Tensor, scale: Tensor | None = None) -> Tensor:
            return super().forward(input)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = two_layers(Scaled(6, 3))

        def forward(self, x: Tensor) -> Tensor:
            h = self.inner[:-1](x)
            return self.inner[-1](scale=torch.zeros_like(h), input=h)

    assert measure(Model(), BATCHES).metrics.nc1 == pytest.approx(measure(two_layers(), BATCHES).metrics.nc1)


class Spatial(nn.Module):
    def __init__(self, reduce) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.trunk = nn.Conv2d(1, 4, 3)
        self.head = nn.Conv2d(4, 3, 1)
        self.reduce = reduce

    def forward(self, x: Tensor) -> Tensor:
        return self.reduce(self.head(self.trunk(x.view(-1, 1, 2, 4).repeat(1, 1, 3, 2)).relu()))


REDUCED = {
    "mean": lambda z: z.mean((2, 3)),
    "relu": lambda z: z.relu().mean((2, 3)),
    "softmax": lambda z: z.mean((2, 3)).softmax(1),
}


@pytest.mark.parametrize("reduce", REDUCED.values(), ids=REDUCED)
def test_a_mean_after_a_pointwise_head_is_a_mean_of_features(reduce) -> None:
    model = Spatial(reduce)
    images = INPUTS.view(-1, 1, 2, 4).repeat(1, 1, 3, 2)
    features = model.trunk(images).relu().mean((2, 3)).detach()
    expected = oracle(features, LABELS, model.head.weight.detach().flatten(1), model.head.bias.detach())
    assert measure(model, BATCHES).metrics.nc1 == pytest.approx(expected["nc1"], rel=1e-4)


def test_a_maximum_after_a_pointwise_head_is_no_reduction_of_features() -> None:
    with pytest.raises(ValueError, match="nor the mean over them"):
        measure(Spatial(lambda z: z.amax((2, 3))), BATCHES)


def test_prototypes_are_a_classifier_without_spread_at_collapse() -> None:
    means = torch.eye(3) + 5
    model = nn.Sequential(nn.Identity(), PrototypeClassifier(means))
    report = measure(model, [(means[LABELS], LABELS)])
    assert report.accuracy == 1
    assert report.metrics.nc2 == pytest.approx(0, abs=1e-5)
    assert report.metrics.nc3 == pytest.approx(0, abs=1e-5)
    assert report.metrics.nc4 == pytest.approx(0, abs=1e-4)
