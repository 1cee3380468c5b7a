from __future__ import annotations

import pytest
import torch
from torch import nn

from neuralcollapse import find_classifier, fix_classifier, set_feature_dim


class TwoHeads(nn.Module):
    """Two tasks on one trunk."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Linear(4, 8)
        self.colour = nn.Linear(8, 3)
        self.shape = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.shape(self.trunk(x).relu())


class ThreeLayers(nn.Module):
    """Linear layers side by side, but each feeds the next."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 8)
        self.second = nn.Linear(8, 6)
        self.third = nn.Linear(6, 3)


class Wrapper(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.net = model
        self.loss = nn.CrossEntropyLoss()


def test_plain_modules() -> None:
    assert find_classifier(ThreeLayers())[0] == "third"
    assert find_classifier(Wrapper(ThreeLayers()))[0] == "net.third"
    assert find_classifier(Wrapper(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))))[0] == "net.1"
    name, layer = find_classifier(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 5, 1), nn.AdaptiveAvgPool2d(1)))
    assert name == "1"
    assert isinstance(layer, nn.Conv2d)


def test_two_heads_are_ambiguous_and_the_error_says_how_to_choose() -> None:
    with pytest.raises(ValueError, match=r"ambiguous classifier: colour \(3, 8\), shape \(5, 8\).*classifier=NAME"):
        find_classifier(TwoHeads())
    assert find_classifier(TwoHeads(), "colour")[0] == "colour"


def test_a_name_that_is_no_linear_layer() -> None:
    with pytest.raises(ValueError, match=r"classifier='head' is not a layer.*trunk, colour, shape"):
        find_classifier(TwoHeads(), "head")
    with pytest.raises(ValueError, match="is a ReLU that holds 0 linear layers"):
        find_classifier(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), "1")
    with pytest.raises(ValueError, match="no linear layer"):
        find_classifier(nn.Sequential(nn.ReLU()))


def test_a_named_container_stands_for_its_only_linear_layer() -> None:
    model = nn.ModuleDict({"features": nn.Linear(2, 3), "out": nn.Sequential(nn.Dropout(), nn.Linear(3, 2))})
    assert find_classifier(model, "out")[0] == "out.1"


@pytest.mark.parametrize(
    ("name", "expected"),
    [("bert", "classifier"), ("vit", "classifier"), ("gpt2", "score"), ("roberta", "classifier.out_proj")]
)  # fmt: skip
def test_hugging_face_models(name: str, expected: str) -> None:
    transformers = pytest.importorskip("transformers")
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    builders = {
        "bert": (transformers.BertConfig, transformers.BertForSequenceClassification, small),
        "roberta": (transformers.RobertaConfig, transformers.RobertaForSequenceClassification, small),
        "vit": (transformers.ViTConfig, transformers.ViTForImageClassification, small | {"image_size": 32}),
        "gpt2": (
            transformers.GPT2Config, transformers.GPT2ForSequenceClassification,
            {"n_embd": 32, "n_layer": 1, "n_head": 2},
        ),
    }  # fmt: skip
    config, model, options = builders[name]
    assert find_classifier(model(config(num_labels=3, **options)))[0] == expected


# ---- convolutions of kernel size 1 -----------------------------------------------------------------

MOVING = {
    "stride": ({"stride": 2}, "it has stride="),
    "padding": ({"padding": 1}, "it has padding="),
    "both": ({"stride": 3, "padding": 1}, "it has stride="),
    "groups": ({"groups": 2}, "it has groups=2"),
}


@pytest.mark.parametrize("name", MOVING)
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_a_convolution_that_moves_pads_or_splits_is_no_linear_head(name: str, dims: int) -> None:
    options, why = MOVING[name]
    kind = getattr(nn, f"Conv{dims}d")
    model = nn.Sequential(kind(2, 8, 3), kind(8, 4, 1, **options))
    x = torch.randn(2, 2, *[6] * dims)
    before = model(x)
    for convert in (find_classifier, fix_classifier, lambda net: set_feature_dim(net, 5)):
        with pytest.raises(ValueError, match=rf"no linear layer \(the convolution '1' of kernel size 1 is none: {why}"):
            convert(model)
        with pytest.raises(ValueError, match=r"holds 0 linear layers: name a single nn\.Linear, or convolution of"):
            fix_classifier(model, classifier="1")
    assert torch.equal(model(x), before)


@pytest.mark.parametrize("options", [{"stride": (1, 2)}, {"stride": (2, 1)}, {"padding": (0, 1)}, {"padding": (1, 0)}])
def test_one_axis_is_enough(options: dict) -> None:
    with pytest.raises(ValueError, match="the convolution '1' of kernel size 1 is none"):
        find_classifier(nn.Sequential(nn.Conv2d(2, 8, 3), nn.Conv2d(8, 3, 1, **options)))


@pytest.mark.parametrize("wrap", [lambda model: model, Wrapper])
def test_no_inner_layer_stands_in_for_a_head_that_is_no_linear_layer(wrap: object) -> None:
    model = Plain(gate=nn.Linear(8, 8), classifier=nn.Sequential(nn.Dropout(), nn.Conv2d(8, 3, 1, stride=2)))
    with pytest.raises(ValueError, match=r"classifier\.1' of kernel size 1 is none: it has stride=\(2, 2\)"):
        find_classifier(wrap(model))  # type: ignore[operator]
    assert find_classifier(model, "gate")[0] == "gate"


def test_transposed_convolutions_are_none() -> None:
    with pytest.raises(ValueError, match="'1' of kernel size 1 is none: it is transposed"):
        find_classifier(nn.Sequential(nn.Conv2d(2, 8, 3), nn.ConvTranspose2d(8, 4, 1)))


@pytest.mark.parametrize(
    "options", [{}, {"padding": "same"}, {"padding": "valid"}, {"dilation": 2}, {"padding": (0, 0)}]
)
def test_a_convolution_that_reads_each_position_is_a_linear_head(options: dict) -> None:
    model = nn.Sequential(nn.Conv2d(2, 8, 3), nn.Conv2d(8, 3, 1, **options))
    x = torch.randn(2, 2, 6, 6)
    shape = model(x).shape
    assert find_classifier(model)[0] == "1"
    assert fix_classifier(model)(x).shape == shape


# ---- several heads ---------------------------------------------------------------------------------


class Timm(nn.Module):
    """What timm's models answer."""

    def __init__(self, heads: nn.Module) -> None:
        super().__init__()
        self.trunk, self.out = nn.Linear(4, 8), heads

    def get_classifier(self) -> nn.Module:
        return self.out


class Plain(nn.Module):
    def __init__(self, **heads: nn.Module) -> None:
        super().__init__()
        self.trunk = nn.Conv2d(3, 8, 3)
        for name, head in heads.items():
            setattr(self, name, head)


def pair(first: int = 8, second: int = 8, classes: int = 3) -> list[nn.Module]:
    return [nn.Linear(first, classes), nn.Linear(second, classes)]


SEVERAL = {
    "timm list": (Timm(nn.ModuleList(pair())), "out.0", "out.1"),
    "timm list of two widths": (Timm(nn.ModuleList(pair(8, 12))), "out.0", "out.1"),
    "timm dictionary": (Timm(nn.ModuleDict({"a": nn.Linear(8, 3), "b": nn.Linear(12, 3)})), "out.a", "out.b"),
    "list": (Plain(head=nn.ModuleList(pair(8, 12))), "head.0", "head.1"),
    "list of chains": (
        Plain(heads=nn.ModuleList(nn.Sequential(nn.Dropout(), head) for head in pair(8, 12))), "heads.0.1", "heads.1.1"
    ),
    "attributes of two widths": (Plain(left=nn.Linear(8, 3), right=nn.Linear(12, 3)), "left", "right"),
    "chains": (
        Plain(left=nn.Sequential(nn.Linear(8, 9), nn.Linear(9, 3)), right=nn.Sequential(nn.Linear(8, 3))),
        "left.1", "right.0",
    ),
    "other numbers of classes": (Plain(head=nn.ModuleList([nn.Linear(8, 3), nn.Linear(8, 5)])), "head.0", "head.1"),
    "wrapped": (Wrapper(Timm(nn.ModuleList(pair(8, 12)))), "net.out.0", "net.out.1"),
}  # fmt: skip


@pytest.mark.parametrize("name", SEVERAL)
def test_several_heads_are_ambiguous_wherever_they_are(name: str) -> None:
    model, *heads = SEVERAL[name]
    with pytest.raises(ValueError, match=r"ambiguous classifier: .*Choose one with classifier=NAME") as raised:
        find_classifier(model)
    assert [part.split(" ")[0] for part in str(raised.value).split(": ")[1].split("), ")] == heads
    for head in heads:
        assert find_classifier(model, head)[0] == head


ONE = {
    "list of layers in turn": (Plain(layers=nn.ModuleList([nn.Linear(8, 6), nn.Linear(6, 3)])), "layers.1"),
    "timm chain in a list": (Timm(nn.ModuleList([nn.Linear(8, 6), nn.Linear(6, 3)])), "out.1"),
    "timm sequence": (Timm(nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))), "out.2"),
    "list of one": (Timm(nn.ModuleList([nn.Linear(8, 3)])), "out.0"),
    "chains in turn": (
        Plain(body=nn.Sequential(nn.Linear(8, 16), nn.ReLU()), tail=nn.Sequential(nn.Dropout(), nn.Linear(16, 3))),
        "tail.1",
    ),
    "square layers": (Plain(layers=nn.ModuleList(nn.Linear(8, 8) for _ in range(3)), fc=nn.Linear(8, 8)), "fc"),
    "features as many as classes": (Plain(body=nn.Linear(8, 3), last=nn.Linear(3, 3)), "last"),
}  # fmt: skip


@pytest.mark.parametrize("name", ONE)
def test_layers_in_turn_are_one_head(name: str) -> None:
    model, expected = ONE[name]
    assert find_classifier(model)[0] == expected


@pytest.mark.parametrize("name", ["crossvit_tiny_240", "deit_tiny_distilled_patch16_224"])
def test_models_of_timm_with_two_heads(name: str) -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model(name, num_classes=5)
    with pytest.raises(ValueError, match=r"ambiguous classifier: head(\.0|) \(5, .*, head(\.1|_dist) \(5, "):
        find_classifier(model)
