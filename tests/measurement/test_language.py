"""Linguistic collapse of a small random GPT-2, against float64 NumPy over hidden states that no hook has touched."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from neuralcollapse import LanguageReport, measure_language_model
from neuralcollapse.geometry.collapse import CollapseWarning
from neuralcollapse.geometry.measures import MEASURES

transformers = pytest.importorskip("transformers")

VOCABULARY = 40


def gpt2(tied: bool = True, **more: Any) -> nn.Module:
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY, n_positions=32, n_embd=16, n_layer=2, n_head=2, initializer_range=0.3,
        tie_word_embeddings=tied, bos_token_id=0, eos_token_id=0, **more,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config)


def tokens() -> Tensor:
    """Some tokens are rare: 3,100 positions."""
    chances = 1 / torch.arange(1.0, VOCABULARY + 1) ** 1.5
    return torch.multinomial(chances, 100 * 32, True, generator=torch.Generator().manual_seed(1)).view(100, 32)


def oracle(model: nn.Module, x: Tensor, real: np.ndarray, least: int) -> dict[str, float]:
    with torch.no_grad():
        hidden = model.eval().transformer(x, attention_mask=torch.from_numpy(real)).last_hidden_state
    h = hidden[:, :-1].double().numpy()[real[:, :-1] & real[:, 1:]]
    y = x[:, 1:].numpy()[real[:, :-1] & real[:, 1:]]
    w = model.lm_head.weight.detach().double().numpy()
    logits = h @ w.T
    kept = [k for k in range(VOCABULARY) if (y == k).sum() >= least]
    means = np.stack([h[y == k].mean(0) for k in kept])
    traces = np.array([((h[y == k] - m) ** 2).sum(1).mean() for k, m in zip(kept, means, strict=True)])
    centred = means - means.mean(0)
    lengths = np.linalg.norm(centred, axis=1)
    u, v = centred / lengths[:, None], w[kept] / np.linalg.norm(w[kept], axis=1)[:, None]
    i, j = np.triu_indices(len(kept), 1)
    kernel = -np.log(np.linalg.norm(u[i] - u[j], axis=1))
    chosen = np.isin(y, kept)
    nearest = np.linalg.norm(h[chosen][:, None] - means, axis=2).argmin(1)
    cosines = (u * v).sum(1)
    apart = np.linalg.norm(means[i] - means[j], axis=1)
    return {
        "tokens": int(chosen.sum()), "classes": len(kept),
        "cdnv_squared": float(np.mean((traces[i] + traces[j]) / (2 * apart**4))),
        "equinorm_means": lengths.std() / lengths.mean(),
        "uniformity": kernel.mean(), "uniformity_variation": kernel.std() / abs(kernel.mean()),
        "unc3": cosines.var(), "duality": 1 - cosines.mean(),
        "accuracy": float((logits.argmax(1) == y)[chosen].mean()),
        "ncc_agreement": float((logits[chosen][:, kept].argmax(1) == nearest).mean()),
    }  # fmt: skip


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("least", [2, 40])
def test_measures_are_those_of_the_oracle(tied: bool, least: int) -> None:
    model, x = gpt2(tied), tokens()
    model.train()
    found = measure_language_model(model, list(x.split(30)), min_samples=least)
    for name, value in oracle(model, x, np.ones(x.shape, bool), least).items():
        assert found.to_dict()[name] == pytest.approx(value, rel=1e-5, abs=1e-9), name
    assert found.vocabulary == VOCABULARY
    assert int(found.moments.counts.min()) >= least
    assert_shown(found)


def assert_shown(found: LanguageReport) -> None:
    lines = str(found).splitlines()
    for name in found.headline:
        (line,) = (line for line in lines if f"  {name} " in line)
        assert f"{getattr(found, name):.4g}" in line
        assert any(arrow in line for arrow in "↓↑")
        assert MEASURES[name].meaning in found.explain()
        if name == "uniformity":
            assert ("≥" in line) is (found.classes > found.moments.feature_dim + 1)
    assert f"{-np.log(2 * found.classes / (found.classes - 1)) / 2:g}" in str(found)


def test_padding_is_no_token_and_labels_are_not_read() -> None:
    model, x = gpt2(), tokens()
    lengths = torch.arange(100) % 20 + 10
    real = torch.arange(32) < lengths[:, None]
    parts = zip(x.split(30), real.long().split(30), strict=True)
    batches = [{"input_ids": a, "attention_mask": b, "labels": torch.full_like(a, -100)} for a, b in parts]
    found = measure_language_model(model, batches, min_samples=5)
    for name, value in oracle(model, x, real.numpy(), 5).items():
        assert found.to_dict()[name] == pytest.approx(value, rel=1e-5, abs=1e-9), name


def test_the_model_is_left_as_it_was() -> None:
    model = gpt2()
    model.train()
    measure_language_model(model, [tokens()], ncc=False)
    assert model.training
    assert not model.lm_head._forward_hooks


def test_another_architecture() -> None:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=32, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model, x = transformers.LlamaForCausalLM(config), tokens()
    found = measure_language_model(model, [(x,)], min_samples=20)
    with torch.no_grad():
        hidden = model.eval().model(x).last_hidden_state[:, :-1].flatten(0, 1).double()
    following = x[:, 1:].flatten()
    for row, token in enumerate(found.token_ids.tolist()):
        torch.testing.assert_close(found.moments.means[row] * found.moments.scale, hidden[following == token].mean(0))


def test_an_iterator_is_read_once_and_says_so() -> None:
    with pytest.warns(CollapseWarning, match="read only once"):
        assert measure_language_model(gpt2(), iter([tokens()])).ncc_agreement is None


@pytest.mark.parametrize(
    ("loader", "error", "message"),
    [([torch.zeros(3, 4)], TypeError, "dtype torch.float32"),
     ([torch.zeros(3, 1, dtype=torch.long)], ValueError, "at least 2"),
     ([["a"]], ValueError, "input_ids"), ([torch.zeros(3, 4, dtype=torch.long)], ValueError, "1 tokens follow"),
     ([], ValueError, "0 tokens follow")],
)  # fmt: skip
def test_what_is_refused(loader: list[Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        measure_language_model(gpt2(), loader)


def test_other_models_are_refused() -> None:
    with pytest.raises(ValueError, match="no output embedding"):
        measure_language_model(nn.Linear(2, 2), [tokens()])
    with pytest.raises(ValueError, match="min_samples=0"):
        measure_language_model(gpt2(), [tokens()], min_samples=0)


def test_the_first_tensor_of_a_tuple_holds_the_tokens() -> None:
    model, x = gpt2(), tokens()[:20]
    alone = measure_language_model(model, [x], progress=False)
    tupled = measure_language_model(model, [(x, torch.zeros_like(x))], progress=False)
    assert tupled.to_dict() == alone.to_dict()


def test_a_device_that_is_not_there_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="device='nope' is not available here"):
        measure_language_model(gpt2(), [tokens()], device="nope")
