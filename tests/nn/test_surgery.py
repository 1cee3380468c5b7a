from __future__ import annotations

import pytest
import torch
from torch import nn

from neuralcollapse import find_classifier


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
