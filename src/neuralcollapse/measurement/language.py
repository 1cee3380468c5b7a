"""Linguistic collapse: the next tokens of a causal language model as its classes (Wu and Papyan, NeurIPS 2024)."""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Generator, Iterable, Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from neuralcollapse.geometry import ClassStatistics, Moments
from neuralcollapse.geometry.arithmetic import row_norms
from neuralcollapse.geometry.collapse import CollapseWarning, variation
from neuralcollapse.geometry.grids import cdnv
from neuralcollapse.geometry.many_classes import gnc3, hyperspherical_uniformity, unc3
from neuralcollapse.geometry.ncc import ncc_mismatch
from neuralcollapse.measurement.language_report import LanguageReport
from neuralcollapse.measurement.layers import inner_model
from neuralcollapse.measurement.passes import read_alike
from neuralcollapse.measurement.placement import checked_device
from neuralcollapse.measurement.preserve import on_device, plain_modes, same_random_numbers, untouched
from neuralcollapse.measurement.progress import tracked
from neuralcollapse.measurement.tokens import real_positions, token_inputs
from neuralcollapse.measurement.weights import affine


def measure_language_model(
    model: nn.Module,
    token_loader: Iterable[Any],
    *,
    min_samples: int = 2,
    ncc: bool = True,
    device: torch.device | str | None = None,
    progress: bool | None = None,
) -> LanguageReport:
    """Linguistic collapse of a causal language model: each position belongs to the class of the token after it.

    What is measured is the hidden state that enters the output embedding (``lm_head``, tied or not). Hidden states are
    streamed: V x d numbers are kept for a vocabulary of V, never d x d. The model is left as it was found. Cost: a
    forward pass over the data (two with ``ncc``, whose second adds O(Kd) per token), and three K x K products.

    Under torch.distributed nothing is merged: each process gets the measures of the batches that it reads.

    Args:
        model: any Hugging Face causal model, or a module with ``get_output_embeddings()``.
        token_loader: batches of token numbers, (B, T) with T at least 2, or mappings with ``input_ids`` and, where
            sequences are padded, ``attention_mask``.
        min_samples: tokens that follow fewer positions are left out; at least 1.
        ncc: measure the agreement with the nearest class centre, in a second pass.
        device: where to compute; by default where the model is.
        progress: show a progress bar; by default on a terminal.

    Raises:
        ValueError: if the model has no output embedding, a batch holds no sequences, fewer than two tokens follow
            often enough, or the device is not available.
        TypeError: if the token numbers are not integers.

    Warns:
        CollapseWarning: where the loader can be read only once, or gives other data in the second pass.

    Source: Wu and Papyan, "Linguistic collapse: neural collapse in (large) language models", NeurIPS 2024, Section 3.

    >>> from transformers import GPT2Config, GPT2LMHeadModel
    >>> model = GPT2LMHeadModel(GPT2Config(vocab_size=9, n_positions=16, n_embd=8, n_layer=1, n_head=2))
    >>> measure_language_model(model, [torch.randint(9, (40, 16))]).vocabulary
    9
    """
    if min_samples < 1:
        raise ValueError(f"min_samples={min_samples} must be at least 1")
    model = inner_model(model)
    source = _Pass(model, token_loader, checked_device(model, device), progress)
    weight, _ = affine(source.head)
    vocabulary, dim = weight.shape
    gathered = ClassStatistics(vocabulary, dim, within="traces")
    right = torch.zeros(vocabulary, dtype=torch.int64)
    with contextlib.closing(source.positions()) as positions:
        for hidden, logits, following in positions:
            gathered.update(hidden, following)
            right += torch.bincount(following[logits.argmax(1) == following].cpu(), minlength=vocabulary)
    kept = (gathered.counts >= min_samples).nonzero().flatten()
    if len(kept) < 2:
        raise ValueError(
            f"{len(kept)} tokens follow at least min_samples={min_samples} of {gathered.total} positions: collapse "
            "needs 2, so pass more data or a smaller min_samples"
        )
    moments = _of_classes(gathered, kept)
    agreement = None
    if ncc and isinstance(token_loader, Iterator):
        warnings.warn(
            "the token_loader is an iterator, which can be read only once: ncc_agreement is left out (pass a list of "
            "batches or a DataLoader, or ncc=False)",
            CollapseWarning,
            stacklevel=2,
        )
    elif ncc:
        agreement = _agreement(source, kept, moments)
    return LanguageReport(
        tokens=moments.total,
        classes=len(kept),
        vocabulary=vocabulary,
        min_samples=min_samples,
        **_measures(moments, weight.cpu()[kept.cpu()]),
        accuracy=int(right[kept.cpu()].sum()) / moments.total,
        ncc_agreement=agreement,
        moments=moments,
        token_ids=kept,
    )


def _of_classes(gathered: ClassStatistics, kept: Int[Tensor, " K"]) -> Moments:
    """The moments of some classes alone."""
    state = dict(gathered.state(copy=False))
    return Moments.from_accumulators(state | {name: state[name][kept] for name in ("counts", "means", "trace_sums")})


def _measures(moments: Moments, weight: Float[Tensor, "K d"]) -> dict[str, float]:
    centred = moments.centred_means
    spread = hyperspherical_uniformity(centred)
    rows = weight.to(centred)
    return {
        "cdnv_squared": cdnv(moments, exponent=2),
        "equinorm_means": variation(row_norms(centred)),
        "uniformity": spread.energy,
        "uniformity_variation": spread.variation,
        "unc3": unc3(rows, centred, normalize=True),
        "duality": gnc3(rows, centred),
    }


def _agreement(source: _Pass, kept: Int[Tensor, " K"], moments: Moments) -> float | None:
    """Share of positions whose nearest class centre is what the model chooses among the classes.

    None, with a warning, where a second pass gives other data than the first.
    """
    wrong, total = 0.0, 0
    with contextlib.closing(source.positions()) as positions:
        for hidden, logits, following in positions:
            classes = kept.to(following.device)
            chosen = torch.isin(following, classes)
            count = int(chosen.sum())
            if count:
                decisions = logits[chosen][:, classes].argmax(1)
                wrong += ncc_mismatch(hidden[chosen], decisions, moments) * count
                total += count
    if not read_alike(moments.total, total, "ncc_agreement is left out", "positions"):
        return None
    return 1 - wrong / total


class _Pass:
    """Reads hidden states, logits and next tokens, batch by batch, as often as it is asked to."""

    def __init__(self, model: nn.Module, loader: Iterable[Any], device: torch.device | None, progress: bool | None):
        found = getattr(model, "get_output_embeddings", lambda: None)()
        if not isinstance(found, nn.Module):
            raise ValueError(
                f"the model ({type(model).__name__}) has no output embedding: expected a causal language model, such "
                "as transformers.AutoModelForCausalLM gives"
            )
        self.model, self.head = model, found
        self._loader, self._device, self._progress = loader, device, progress
        self._seen: list[tuple[Tensor, Tensor]] = []

    def positions(self) -> Generator[tuple[Tensor, Tensor, Tensor], None, None]:
        """Hidden states (P, d), logits (P, V) and next tokens (P,) of each batch, padding left out."""
        with contextlib.ExitStack() as modes:
            modes.enter_context(plain_modes())
            modes.enter_context(same_random_numbers(self._loader))
            modes.enter_context(untouched(self.model))
            modes.enter_context(on_device(self.model, self._device))
            modes.callback(self.head.register_forward_hook(self._watch).remove)
            for batch in tracked(self._loader, self._progress):
                yield self._of(batch)

    def _watch(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self._seen.append((inputs[0], output))

    def _of(self, batch: Any) -> tuple[Tensor, Tensor, Tensor]:
        named = token_inputs(batch)
        home = self._device or next(self.model.parameters()).device
        named = {name: value.to(home) if isinstance(value, Tensor) else value for name, value in named.items()}
        if "use_cache" in inspect.signature(self.model.forward).parameters:
            named["use_cache"] = False
        real = real_positions(named)
        self._seen.clear()
        self.model(**named)
        tokens = named["input_ids"]
        if len(self._seen) != 1 or self._seen[0][0].shape[:2] != tokens.shape:
            raise ValueError(
                f"the output embedding ran {len(self._seen)} times over {tuple(tokens.shape)} tokens: expected once, "
                "at every position"
            )
        hidden, logits = self._seen.pop()
        counts = real[:, :-1] & real[:, 1:]
        return hidden[:, :-1][counts], logits[:, :-1][counts], tokens[:, 1:][counts].long()
