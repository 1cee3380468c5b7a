"""Padding is left out of means over positions, whichever way a batch tells it, or it is asked for."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from neuralcollapse import measure, measure_language_model
from neuralcollapse.measurement.padding import kept_positions
from tests.cases import oracle

LENGTHS = torch.randint(2, 9, (60,), generator=torch.Generator().manual_seed(2))
KEPT = torch.arange(8) < LENGTHS[:, None]
TOKENS = torch.randint(1, 30, (60, 8), generator=torch.Generator().manual_seed(3)) * KEPT


class Text(nn.Module):
    """Words, a layer for each of them, and a classifier of the first."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.embedding = nn.Embedding(30, 6, padding_idx=0 if kind == "padding_idx" else None)
        self.layer = nn.Linear(6, 5)
        self.head = nn.Linear(5, 3)
        if kind == "config":
            self.config = type("Config", (), {"pad_token_id": 0})()

    def forward(self, tokens: Tensor, attention_mask: Tensor | None = None, lengths: Tensor | None = None) -> Tensor:
        return self.head(self.layer(self.embedding(tokens))[:, 0])


def padded_batches(kind: str, size: int) -> list:
    labels, batches = torch.arange(60) % 3, []
    for rows in torch.arange(60).split(size):
        longest = int(LENGTHS[rows].max())
        batch = {"tokens": TOKENS[rows, :longest], "labels": labels[rows]}
        if kind == "attention_mask":
            batch["attention_mask"] = KEPT[rows, :longest].long()
        if kind == "lengths":
            batch["lengths"] = LENGTHS[rows]
        batches.append(batch)
    return batches


@pytest.mark.parametrize("kind", ["attention_mask", "lengths", "padding_idx", "config"])
def test_padding_is_left_out_whatever_the_batch_size(kind: str) -> None:
    model = Text(kind)
    with torch.no_grad():
        words = model.layer(model.embedding(TOKENS))
    means = torch.stack([word[:length].mean(0) for word, length in zip(words, LENGTHS.tolist(), strict=True)])
    last = words[torch.arange(60), LENGTHS - 1]
    for size in (1, 10, 60):
        report = measure(model, padded_batches(kind, size), layers=["layer"])
        assert report.layers["layer"].nc1 == pytest.approx(oracle(means, torch.arange(60) % 3)["nc1"], rel=1e-4)
        report = measure(model, padded_batches(kind, size), layers=["layer"], pooling="last")
        assert report.layers["layer"].nc1 == pytest.approx(oracle(last, torch.arange(60) % 3)["nc1"], rel=1e-4)


def test_a_sample_of_nothing_but_padding_is_refused() -> None:
    batch = {"tokens": TOKENS * (torch.arange(60) != 7)[:, None], "labels": torch.arange(60) % 3}
    with pytest.raises(ValueError, match="sample 7 of a batch is nothing but padding"):
        measure(Text("padding_idx"), [batch], layers=["layer"])


def test_padded_bert_is_one_number_for_all_batch_sizes() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, num_labels=3
    )
    model = transformers.BertForSequenceClassification(config).eval()
    found = []
    for size in (1, 10, 60):
        batches = [{"input_ids": batch.pop("tokens"), **batch} for batch in padded_batches("attention_mask", size)]
        found.append(measure(model, batches, layers=["bert.encoder.layer.0"]).layers["bert.encoder.layer.0"].nc1)
    assert math.isfinite(found[0])
    assert found == pytest.approx([found[0]] * 3, rel=1e-4)


def test_padding_tokens_are_found_whichever_axis_is_the_sample() -> None:
    model = nn.Embedding(9, 4, padding_idx=0)
    tokens = torch.tensor([[5, 6, 0, 0], [7, 0, 8, 0], [1, 2, 3, 4]])
    wanted = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]], dtype=torch.bool)
    assert kept_positions(model, {"x": tokens}, 3).kept.equal(wanted)
    assert kept_positions(model, {"x": tokens.T}, 3).kept.equal(wanted)
    assert kept_positions(model, {"x": tokens}, 5).kept is None


@pytest.mark.parametrize("name", ["key_padding_mask", "src_key_padding_mask"])
def test_torchs_own_mask_says_what_is_padding(name: str) -> None:
    mask = torch.tensor([[False, False, True], [False, True, True]])
    found = kept_positions(torch.nn.Identity(), {"x": torch.ones(2, 3, 4), name: mask}, 2)
    assert found.kept.tolist() == [[True, True, False], [True, False, False]]


def test_lengths_say_what_is_padding() -> None:
    found = kept_positions(torch.nn.Identity(), {"x": torch.ones(2, 3, 4), "lengths": torch.tensor([3, 1])}, 2)
    assert found.kept.tolist() == [[True, True, True], [True, False, False]]


# ---- masks of every kind ---------------------------------------------------------------------------

CLASSES = torch.arange(60) % 3
WORDS = torch.randn(60, 8, 4, generator=torch.Generator().manual_seed(4)) + CLASSES[:, None, None]


class Reader(nn.Module):
    """A layer of every position, and a classifier of the mean over what is real."""

    def __init__(self, argument: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.head = nn.Linear(4, 5), nn.Linear(5, 3)
        names = {"layer": self.layer, "head": self.head, "KEPT": KEPT}
        exec(f"def forward(x, {argument}):\n    return head(layer(x)[:, 0])", names)
        self.forward = names["forward"]


def right(layer: nn.Module, words: Tensor, kept: Tensor) -> float:
    with torch.no_grad():
        found = layer(words).double()
    means = (found * kept[..., None]).sum(1) / kept.sum(1, keepdim=True)
    return oracle(means, CLASSES)["nc1"]


def added(kept: Tensor, amount: float) -> Tensor:
    return torch.zeros(kept.shape).masked_fill(~kept, amount)


MASKS = {
    "attention_mask": {
        "bool": KEPT, "int": KEPT.long(), "float": KEPT.float(),
        "-1e9": added(KEPT, -1e9), "-inf": added(KEPT, -math.inf), "-1e4": added(KEPT, -1e4).half(),
        "least": added(KEPT, torch.finfo(torch.float32).min),
        "of integers": added(KEPT, -10000).long(), "4-d": added(KEPT, -1e9)[:, None, None], "3-d": KEPT[:, None],
    },
    "src_key_padding_mask": {
        "bool": ~KEPT, "-inf": added(KEPT, -math.inf), "-1e9": added(KEPT, -1e9), "int": (~KEPT).long(),
    },
    "key_padding_mask": {"bool": ~KEPT, "-inf": added(KEPT, -math.inf)},
    "padding_mask": {"bool": ~KEPT},
    "input_mask": {"int": KEPT.long()},
    "lengths": {"int": LENGTHS, "list": LENGTHS.tolist(), "narrow": LENGTHS.to(torch.int16)},
    "seq_len": {"int": LENGTHS},
    "x_lens": {"int": LENGTHS},
}  # fmt: skip


@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name, kinds in MASKS.items() for kind in kinds])
@pytest.mark.parametrize("longer", [0, 3], ids=["as long as the longest", "of a fixed length"])
def test_every_kind_of_mask(name: str, kind: str, longer: int) -> None:
    mask, model = MASKS[name][kind], Reader(f"{name}=None")
    words = torch.cat([WORDS, torch.ones(60, longer, 4)], 1)
    if longer and isinstance(mask, Tensor) and mask.ndim > 1:
        mask = torch.cat([mask, mask[LENGTHS.argmin(), ..., -1:].expand(*mask.shape[:-1], longer)], -1)
    batch = {"x": words, name: mask, "labels": CLASSES}
    found = measure(model, [batch], layers=["layer"]).layers["layer"].nc1
    assert found == pytest.approx(right(model.layer, WORDS, KEPT), rel=1e-4)


def test_an_additive_mask_of_a_batch_without_padding() -> None:
    model, whole = Reader("attention_mask"), torch.ones_like(KEPT)
    batch = {"x": WORDS, "attention_mask": torch.zeros(60, 8), "labels": CLASSES}
    found = measure(model, [batch], layers=["layer"]).layers["layer"].nc1
    assert found == pytest.approx(right(model.layer, WORDS, whole), rel=1e-4)


@pytest.mark.parametrize("name", ["mask", "attn_mask"])
def test_a_mask_whose_meaning_the_name_does_not_tell(name: str) -> None:
    model, batch = Reader(name), {"x": WORDS, name: KEPT, "labels": CLASSES}
    measure(model, [batch])  # which needs no mask
    with pytest.raises(ValueError, match=f"layer 'layer' gives 8 positions, whose padding '{name}' as a mask of what"):
        measure(model, [batch], layers=["layer"])
    chosen = measure(model, [batch], layers=["layer"], pooling="first").layers["layer"].nc1
    assert chosen == pytest.approx(oracle(model.layer(WORDS)[:, 0].detach(), CLASSES)["nc1"], rel=1e-4)


class Pair(nn.Module):
    """Two sequences of tokens, a layer for each."""

    def __init__(self, pad: int | None = 0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(30, 6, padding_idx=pad)
        self.one, self.other, self.head = nn.Linear(6, 5), nn.Linear(6, 5), nn.Linear(10, 3)

    def forward(self, a: Tensor, b: Tensor, attention_mask=None, attention_mask_b=None, lengths=None) -> Tensor:
        one, other = self.one(self.embedding(a)), self.other(self.embedding(b))
        return self.head(torch.cat([one[:, 0], other[:, 0]], 1))


LENGTHS_B = LENGTHS.flip(0)
KEPT_B = torch.arange(8) < LENGTHS_B[:, None]
TOKENS_B = torch.randint(1, 30, (60, 8), generator=torch.Generator().manual_seed(7)) * KEPT_B
WIDER_B = torch.cat([TOKENS_B, torch.zeros(60, 2, dtype=torch.long)], 1)

SAME_LENGTH = {
    "tokens": (0, {}),
    "a mask of one": (0, {"attention_mask": KEPT.long()}),
    "a mask of one, no padding token": (None, {"attention_mask": KEPT.long()}),
    "two masks": (None, {"attention_mask": KEPT.long(), "attention_mask_b": KEPT_B.long()}),
    "lengths of one": (0, {"lengths": LENGTHS}),
}


@pytest.mark.parametrize("kind", SAME_LENGTH)
def test_two_sequences_of_one_length_are_asked_for(kind: str) -> None:
    pad, more = SAME_LENGTH[kind]
    model, batch = Pair(pad), {"a": TOKENS, "b": TOKENS_B, "labels": CLASSES, **more}
    measure(model, [batch])  # the classifier needs no mask
    with pytest.raises(ValueError, match=r"layer 'other' gives 8 positions, whose padding .* tell differently: pass"):
        measure(model, [batch], layers=["other"])
    with torch.no_grad():
        words = model.other(model.embedding(TOKENS_B))
    means = torch.stack([word[:length].mean(0) for word, length in zip(words, LENGTHS_B.tolist(), strict=True)])
    by_hand = {"other": lambda output: (output * KEPT_B[..., None]).sum(1) / KEPT_B.sum(1, keepdim=True)}
    found = measure(model, [batch], layers=["other"], pooling=by_hand).layers["other"].nc1
    assert found == pytest.approx(oracle(means, CLASSES)["nc1"], rel=1e-4)


@pytest.mark.parametrize("kind", ["tokens", "a mask of one", "two masks"])
def test_two_sequences_of_two_lengths_are_told_apart(kind: str) -> None:
    pad, more = SAME_LENGTH[kind]
    more = {name: nn.functional.pad(mask, (0, 2)) if name.endswith("b") else mask for name, mask in more.items()}
    model, batch = Pair(pad), {"a": TOKENS, "b": WIDER_B, "labels": CLASSES, **more}
    report = measure(model, [batch], layers=["one", "other"])
    for layer, tokens, lengths in (("one", TOKENS, LENGTHS), ("other", TOKENS_B, LENGTHS_B)):
        with torch.no_grad():
            words = model.get_submodule(layer)(model.embedding(tokens))
        means = torch.stack([word[:length].mean(0) for word, length in zip(words, lengths.tolist(), strict=True)])
        assert report.layers[layer].nc1 == pytest.approx(oracle(means, CLASSES)["nc1"], rel=1e-4)


def test_two_sequences_padded_alike() -> None:
    model, batch = Pair(), {"a": TOKENS, "b": TOKENS_B[:, :1] * KEPT, "labels": CLASSES}
    with torch.no_grad():
        words = model.other(model.embedding(batch["b"]))
    means = torch.stack([word[:length].mean(0) for word, length in zip(words, LENGTHS.tolist(), strict=True)])
    found = measure(model, [batch], layers=["other"]).layers["other"].nc1
    assert found == pytest.approx(oracle(means, CLASSES)["nc1"], rel=1e-4)


def test_segments_and_positions_are_no_tokens() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, num_labels=3
    )
    torch.manual_seed(0)
    model = transformers.BertForSequenceClassification(config).eval()
    words = torch.randn(60, 8, 16, generator=torch.Generator().manual_seed(8)) + CLASSES[:, None, None]
    segments = (torch.arange(8) >= torch.arange(60)[:, None] % 7 + 1).long()
    batch = {"inputs_embeds": words, "token_type_ids": segments, "position_ids": torch.arange(8).expand(60, 8)}
    kept: dict[str, Tensor] = {}
    name = "bert.encoder.layer.0"
    model.get_submodule(name).register_forward_hook(
        lambda module, given, output: kept.update(found=output[0] if isinstance(output, tuple) else output)
    )
    found = measure(model, [{**batch, "labels": CLASSES}], layers=[name]).layers[name].nc1
    assert found == pytest.approx(oracle(kept["found"].mean(1), CLASSES)["nc1"], rel=1e-4)


# ---- masks of language models ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def language_model() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=9, n_positions=16, n_embd=8, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
        )
    ).eval()


IDS = TOKENS % 9


def test_the_mask_in_a_tuple_of_tokens_counts(language_model: nn.Module) -> None:
    report = measure_language_model(language_model, [{"input_ids": IDS, "attention_mask": KEPT.long()}])
    assert report.tokens == int((LENGTHS - 1).sum())
    expected = report.to_dict()
    for batch in ((IDS, KEPT.long()), [IDS, KEPT], (IDS, KEPT.long(), IDS), (IDS, IDS, KEPT)):
        assert measure_language_model(language_model, [batch]).to_dict() == expected
    plain = measure_language_model(language_model, [IDS]).to_dict()
    assert measure_language_model(language_model, [(IDS, IDS.masked_fill(~KEPT, -100))]).to_dict() == plain
    assert plain != expected


def test_a_tuple_whose_mask_cannot_be_told(language_model: nn.Module) -> None:
    for batch in ((IDS, KEPT.long(), KEPT), ((IDS > 3).long(), KEPT.long())):
        with pytest.raises(ValueError, match="cannot be told which part is the attention mask: give mappings"):
            measure_language_model(language_model, [batch])
    with pytest.raises(ValueError, match=r"attention_mask has shape \(60, 8, 8\).*\(B, T\)"):
        measure_language_model(language_model, [{"input_ids": IDS, "attention_mask": torch.ones(60, 8, 8)}])
