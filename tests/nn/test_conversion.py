"""Conversion of models by hand-made cases; every library's models are in measurement/test_zoo.py."""

import copy
import re

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torch.nn.utils import prune

from neuralcollapse import (
    ETFClassifier,
    PrototypeClassifier,
    find_classifier,
    fix_classifier,
    measure,
    set_feature_dim,
    use_prototypes,
)


def small(classes: int = 3, width: int = 8) -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, classes))


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.left, self.right = nn.Linear(4, 8), nn.Linear(8, 3), nn.Linear(8, 5)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(6, 8), nn.Linear(8, 6, bias=False)
        self.head.weight = self.embed.weight


def test_options_of_the_head_and_what_stays():
    model = small().double()
    fix_classifier(model, rotation="random", scale=4.0, learn_scale=True)
    assert model[2].scale.requires_grad
    assert model[2].weight.dtype == torch.float64
    assert fix_classifier(nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 3, bias=False)))[1].bias is None
    assert fix_classifier(small(), num_classes=5)[2].out_features == 5


@pytest.mark.parametrize("convert", [fix_classifier, lambda model: set_feature_dim(model, 10)])
@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("model", "kind", "words"),
    [
        (TwoHeads(), ValueError, "ambiguous classifier: left .*, right .*classifier=NAME"),
        (Tied(), ValueError, r"shares its weight with embed\.weight"),
        (nn.Sequential(nn.ReLU()), ValueError, "no linear layer"),
        (nn.Linear(3, 2), ValueError, "itself the linear layer"),
        (nn.Sequential(nn.LazyLinear(3)), ValueError, "lazy"),
        (nn.DataParallel(small()), TypeError, r"convert model\.module"),
    ],
)
def test_refused_models_are_left_alone(model, kind, words, convert):
    before = list(model.state_dict())
    with pytest.raises(kind, match=words):
        convert(model)
    assert list(model.state_dict()) == before


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch deprecates its quantised tensors
def test_quantised_models_are_refused():
    model = nn.Sequential(nn.Linear(4, 4), torch.ao.nn.quantized.dynamic.Linear(4, 3))
    with pytest.raises(ValueError, match="quantised"):
        fix_classifier(model)


@pytest.mark.usefixtures("unchecked_shapes")
def test_too_few_features():
    model = small(classes=20)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for convert in (fix_classifier, lambda m: set_feature_dim(m, 18)):
        with pytest.raises(ValueError, match=r"(in_features=8|feature_dim=18) cannot hold a simplex ETF of 20 classes"):
            convert(model)
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    with pytest.raises(ValueError, match="scale=-1"):
        fix_classifier(small(), scale=-1.0)
    fix_classifier(set_feature_dim(model, 19))  # the way out that the message names
    assert model(torch.randn(2, 4)).shape == (2, 20)


@pytest.mark.parametrize("make", [small, lambda: nn.Sequential(nn.Conv2d(4, 8, 1), nn.ReLU(), nn.Conv2d(8, 3, 1))])
def test_frozen_model_stays_frozen_but_for_what_is_new(make):
    model = make().requires_grad_(False)
    set_feature_dim(fix_classifier(model, learn_scale=True), 2)
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["2.0.weight", "2.1.scale"]
    model[2][1].scale.requires_grad_(False)
    set_feature_dim(model, 4)
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["2.0.weight", "2.1.0.weight"]
    learned = fix_classifier(make().requires_grad_(False), bias=True)  # asked for
    assert [name for name, p in learned.named_parameters() if p.requires_grad] == ["2.bias"]
    assert all(p.requires_grad for p in fix_classifier(make()).parameters())


def test_projection_of_maps_and_sequential_heads():
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.Conv2d(16, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    x = torch.randn(2, 3, 9, 9)
    learned = copy.deepcopy(model)
    fix_classifier(model)
    with torch.no_grad():
        learned[1].weight.copy_(model[1].weight[:, :, None, None])
        learned[1].bias.zero_()
    torch.testing.assert_close(model(x), learned(x), atol=1e-5, rtol=1e-5)
    set_feature_dim(model, 5)
    assert model(x).shape == (2, 5)
    assert find_classifier(model)[0] == "1.1"


class Neck(torchvision.models.ResNet):
    """With another reader of the last block: before the classifier, or beside it."""

    def __init__(self, neck: nn.Module, beside: bool = False, pooled: bool = True) -> None:
        super().__init__(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=4)
        self.beside, self.pooled, self.neck = beside, pooled, neck

    def _forward_impl(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        if not self.pooled:
            return self.fc(torch.flatten(self.avgpool(self.neck(x)), 1))
        x = torch.flatten(self.avgpool(x), 1)
        if self.beside:
            self.projected = self.neck(x)
            return self.fc(x)
        return self.fc(self.neck(x))


class Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(512, 1, 1))

    def forward(self, x):
        return x * self.scale


NECKS = {
    "batch norm": lambda: Neck(nn.BatchNorm1d(512)), "beside": lambda: Neck(nn.Linear(512, 16), beside=True),
    "group norm": lambda: Neck(nn.GroupNorm(32, 512), pooled=False),
    "group norm without weights": lambda: Neck(nn.GroupNorm(32, 512, affine=False), pooled=False),
    "layer norm without weights": lambda: Neck(nn.LayerNorm(512, elementwise_affine=False)),
    "prelu": lambda: Neck(nn.PReLU(512), pooled=False), "scale": lambda: Neck(Scale(), pooled=False),
    "gru": lambda: Neck(nn.Sequential(nn.GRUCell(512, 512))),
}  # fmt: skip


@pytest.mark.parametrize("name", NECKS)
def test_a_resnet_whose_features_something_else_reads_gets_a_projection(name: str) -> None:
    model = NECKS[name]().eval()
    set_feature_dim(model, 4, classifier="fc")
    assert model.layer4[0].bn2.num_features == 512
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 4)
    assert model.fc[1].in_features == 4


def test_a_head_with_a_forward_of_its_own_is_not_made_anew() -> None:
    class Cosine(nn.Linear):
        def forward(self, x):
            return 16 * nn.functional.linear(nn.functional.normalize(x), nn.functional.normalize(self.weight))

    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), Cosine(8, 3))
    with pytest.raises(ValueError, match="the classifier is a Cosine, whose forward is its own"):
        set_feature_dim(model, 3)
    assert isinstance(model[2], Cosine)
    plain = nn.Linear(8, 3)
    plain.forward = lambda x: Cosine.forward(plain, x)
    with pytest.raises(ValueError, match="the classifier is a Linear, whose forward is its own"):
        set_feature_dim(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), plain), 3)


def capped(layer: nn.Linear, x: torch.Tensor) -> torch.Tensor:
    return 30 * torch.tanh(nn.Linear.forward(layer, x) / 30)


def clamped(layer: nn.Linear, x: torch.Tensor) -> torch.Tensor:
    return nn.Linear.forward(layer, x).clamp(-10, 10)


def scaled(layer: nn.Linear, x: torch.Tensor) -> torch.Tensor:
    return layer.scale * nn.Linear.forward(layer, x)


def clamped_far(layer: nn.Linear, x: torch.Tensor) -> torch.Tensor:
    return nn.Linear.forward(layer, x).clamp(-100, 100)


def larger(layer: nn.Linear, x: torch.Tensor) -> torch.Tensor:
    return 30 * nn.functional.linear(x, layer.weight)


@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("function", [capped, clamped, clamped_far, scaled, larger])
def test_a_head_that_differs_on_large_features_or_in_training_alone_is_refused(function, dtype, zero) -> None:
    class Own(nn.Linear):
        forward = function

    head = Own(64, 10)
    head.scale = nn.Parameter(torch.ones(())) if function is scaled else None
    with torch.no_grad():
        head.weight.mul_(0 if zero else 1)
    before = head.weight.detach().to(dtype)
    model = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), head).to(dtype)
    with pytest.raises(ValueError, match="the classifier is a Own, whose forward is its own"):
        set_feature_dim(model, 10)
    assert torch.equal(model[2].weight, before)


def test_asking_a_head_leaves_graphs_and_inference_weights_alone() -> None:
    class Scripted(nn.Linear):
        def forward(self, x):
            return x @ self.weight.T + self.bias

    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), Scripted(8, 3))
    loss, weight = model(torch.randn(2, 4)).sum(), model[2].weight
    set_feature_dim(model, 5)
    loss.backward()
    assert weight.grad is not None
    with torch.inference_mode():
        frozen = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), Scripted(8, 3))
    assert set_feature_dim(frozen, 5)(torch.randn(2, 4)).shape == (2, 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_head_that_writes_its_own_forward_but_computes_a_linear_layer_is_made_anew(dtype: torch.dtype) -> None:
    """As timm.layers.Linear is, and a layer with a forward that accelerate wrapped."""

    class Scripted(nn.Linear):
        def forward(self, x):
            return x @ self.weight.T + self.bias

    wrapped = nn.Linear(8, 3)
    plain_forward = wrapped.forward
    wrapped.forward = lambda x: plain_forward(x)
    for head in (Scripted(8, 3), wrapped):
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), head).to(dtype)
        set_feature_dim(model, 5)
        assert model(torch.randn(2, 4, dtype=dtype)).shape == (2, 3)
        assert find_classifier(model)[1].in_features == 5


@pytest.mark.parametrize("batched", [False, True])
def test_a_fixed_map_head_takes_a_map_with_or_without_a_batch(batched: bool) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 1))
    images = torch.randn(6, 3, 8, 8)
    fix_classifier(model)
    whole = model(images)
    assert whole.shape == (6, 4, 8, 8)
    if not batched:
        torch.testing.assert_close(model(images[0]), whole[0])


def test_a_class_without_a_mean_is_no_prototype() -> None:
    means = torch.randn(3, 8)
    means[1] = 0
    with pytest.raises(ValueError, match=re.escape("class_means[1] is zero")):
        use_prototypes(small(), means)
    with pytest.raises(ValueError, match=re.escape("class_means[1] is zero")):
        PrototypeClassifier(means)


def test_prototypes_agree_with_ncc_mismatch():
    torch.manual_seed(0)
    model = small()
    x, y = torch.randn(90, 4), torch.arange(90) % 3
    report = measure(model, [(x, y)])
    before = model.eval()(x).argmax(1)
    use_prototypes(model, report.statistics.means)
    assert isinstance(model[2], PrototypeClassifier)
    mismatch = (model(x).argmax(1) != before).double().mean()
    assert float(mismatch) == pytest.approx(report.ncc_mismatch)
    with pytest.raises(ValueError, match=re.escape("class_means have shape (3, 5)")):
        use_prototypes(small(), torch.randn(3, 5))
    with pytest.raises(ValueError, match="PrototypeClassifier"):
        fix_classifier(model)


@pytest.mark.parametrize("name", ["bert", "vit", "resnet"])
def test_hugging_face(name, tmp_path):
    transformers = pytest.importorskip("transformers")
    tiny = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    if name == "bert":
        config = transformers.BertConfig(vocab_size=50, num_labels=4, **tiny)
        inputs, make = torch.randint(50, (3, 7)), transformers.BertForSequenceClassification
    elif name == "vit":
        config = transformers.ViTConfig(image_size=16, patch_size=8, num_labels=4, **tiny)
        inputs, make = torch.randn(3, 3, 16, 16), transformers.ViTForImageClassification
    else:
        config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=4)
        inputs, make = torch.randn(3, 3, 32, 32), transformers.ResNetForImageClassification
    model = set_feature_dim(fix_classifier(make(config)), 4)
    assert isinstance(find_classifier(model)[1], ETFClassifier)
    model(inputs, labels=torch.tensor([0, 1, 3])).loss.backward()
    torch.optim.AdamW(model.parameters()).step()
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    again = set_feature_dim(fix_classifier(make(config)), 4)
    again.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    model.eval(), again.eval()
    assert torch.equal(model(inputs).logits, again(inputs).logits)


def test_num_classes_0_is_refused_and_not_taken_for_none() -> None:
    with pytest.raises(ValueError, match="num_classes=0: a simplex ETF needs at least 2 classes"):
        fix_classifier(nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 3)), num_classes=0)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_pointwise_heads_of_every_dimension_convert(dims: int) -> None:
    convolution = getattr(nn, f"Conv{dims}d")
    model = nn.Sequential(convolution(2, 8, 3), convolution(8, 3, 1))
    x = torch.randn(2, 2, *[5] * dims)
    expected = model(x).shape
    for convert in (fix_classifier, lambda net: set_feature_dim(net, 4)):
        convert(model)
        assert model(x).shape == expected
    assert isinstance(model[1][0], convolution)


@pytest.mark.parametrize("convert", [
    fix_classifier, lambda net: set_feature_dim(net, 5), lambda net: use_prototypes(net, torch.randn(3, 8)),
])  # fmt: skip
def test_hooks_of_the_head_stay_and_can_be_removed(convert):
    model = small()
    seen = []
    handles = [
        model[2].register_forward_hook(lambda layer, given, found: seen.append("out")),
        model[2].register_forward_pre_hook(lambda layer, given, kept: seen.append("in"), with_kwargs=True),
        model[2].register_full_backward_hook(lambda layer, given, found: seen.append("back")),
    ]
    convert(model)(torch.randn(6, 4)).sum().backward()
    assert seen == ["in", "out", "back"]
    for handle in handles:
        handle.remove()
    model(torch.randn(6, 4)).sum().backward()
    assert len(seen) == 3


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("wrap", [
    nn.utils.weight_norm, nn.utils.spectral_norm, lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
    nn.utils.parametrizations.weight_norm,
])  # fmt: skip
def test_hooks_that_compute_the_old_weight_go_with_it(wrap):
    model = small()
    wrap(model[2])
    old, seen = model[2], []
    handles = [
        model[2].register_forward_hook(lambda layer, given, found: 2 * found),
        model[2].register_forward_pre_hook(lambda layer, given: seen.append("in")),
        model[2].register_forward_pre_hook(lambda layer, given, kept: seen.append("kept"), with_kwargs=True),
    ]
    fix_classifier(model)
    x = torch.randn(6, 4)
    h = model[:2](x)
    torch.testing.assert_close(model(x), 2 * (h @ model[2].weight.T))
    assert seen == ["in", "kept"]
    with torch.no_grad():
        list(old.parameters())[-1].mul_(3)
    before = old(h).detach() / 2  # the old layer still computes its weight
    torch.testing.assert_close(before, nn.functional.linear(h, old.weight, old.bias).detach())
    seen.clear()
    for handle in handles:
        handle.remove()
    torch.testing.assert_close(model(x), h @ model[2].weight.T)
    assert not seen


def test_the_means_of_prototypes_are_copied_and_in_the_precision_of_the_model():
    means = torch.randn(3, 8, dtype=torch.float64)
    for given in (means, means.float(), means.numpy(), means.tolist()):
        kept = torch.tensor(np.array(given))
        model = use_prototypes(small().double(), given)
        assert model[2].class_means.dtype == torch.float64
        assert torch.equal(model[2].class_means, kept.double())
        model[2].class_means.zero_()
        model.load_state_dict({key: torch.ones_like(tensor) for key, tensor in model.state_dict().items()})
        assert torch.equal(torch.tensor(np.array(given)), kept)
    held = PrototypeClassifier(single := means.float())
    held.class_means.zero_()
    assert bool(single.any())
    with pytest.raises(ValueError, match=r"class_means reach 1e\+60, which torch.float32 does not hold"):
        use_prototypes(small(), torch.full((3, 8), 1e60, dtype=torch.float64))
    assert use_prototypes(small().double(), torch.full((3, 8), 1e60, dtype=torch.float64))[2].class_means.max() == 1e60
    assert use_prototypes(small().bfloat16(), means)[2].class_means.dtype == torch.bfloat16


def test_models_that_keep_the_number_of_classes_are_told():
    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.num_classes, self.num_labels = small(), 3, True

    model = Outer()
    fix_classifier(model, num_classes=5)
    assert (model.num_classes, model.num_labels) == (5, True)
    use_prototypes(model, torch.randn(4, 8))
    assert model.num_classes == 4
    other = Outer()
    other.num_classes = 7  # of something else
    assert fix_classifier(other, num_classes=5).num_classes == 7


@pytest.mark.parametrize("wrapped", [False, True])
def test_hugging_face_losses_fit_another_number_of_classes(wrapped):
    transformers = pytest.importorskip("transformers")
    tiny = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    for kind in ("Bert", "Roberta"):
        config = getattr(transformers, f"{kind}Config")(vocab_size=50, num_labels=3, **tiny)
        model = getattr(transformers, f"{kind}ForSequenceClassification")(config)
        whole = nn.ModuleDict({"net": model}) if wrapped else model
        fix_classifier(whole, num_classes=5)
        assert model.config.num_labels == len(model.config.id2label) == 5
        found = model(torch.randint(50, (6, 7)), labels=torch.tensor([0, 1, 2, 3, 4, 4]))
        expected = nn.functional.cross_entropy(found.logits, torch.tensor([0, 1, 2, 3, 4, 4]))
        torch.testing.assert_close(found.loss, expected)
