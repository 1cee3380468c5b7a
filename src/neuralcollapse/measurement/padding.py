"""Which positions of a batch are padding: known from masks, lengths and token numbers, or asked for; never a guess."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

_LENGTHS = re.compile(r"(^|_)(seq_?)?len(s|gths?)?(_|$)")
"""Arguments that say how many positions of each sample are real."""

_TRUE_IS_PADDING = re.compile(r"(^|_)pad(ding)?_masks?(_|$)")
"""Masks that mark padding, as torch's do; a floating point one is added to attention scores."""

_TRUE_IS_REAL = re.compile(r"(^|_)(attention|input)_masks?(_|$)")
"""Masks that mark what is real, as Hugging Face's do; one with negative numbers is added to attention scores."""

_EITHER = ("mask", "attn_mask")
"""The name of these masks does not say whether True marks real positions or padding."""

_NO_TOKENS = re.compile(r"mask|type|segment|position|label|index|(^|_)idx?$")
"""Arguments of whole numbers that are no token numbers."""

_WAY = "pass pooling=, a function of its output that gives (samples, features)"


@dataclass(frozen=True)
class Sequences:
    """What is known of one sequence of each sample."""

    source: str
    """The argument that told it."""
    kept: Tensor
    """(samples, positions), True for what is no padding"""
    longest: int | None = None
    """Positions of the longest sample, where lengths told it: some layers cut off what comes after."""

    @functools.cached_property
    def padded(self) -> bool:
        """Whether any position is padding."""
        return not bool(self.kept.all())

    def at(self, positions: int) -> Tensor | None:
        """The mask for so many positions, None where it is one of other positions."""
        if positions == self.kept.shape[1]:
            return self.kept
        return self.kept[:, :positions] if positions == self.longest else None


@dataclass(frozen=True)
class Padding:
    """What is known of the padding of a batch."""

    sequences: tuple[Sequences, ...] = ()

    @property
    def kept(self) -> Tensor | None:
        """The mask of the batch's one sequence; None where nothing is padded, or there are several that differ."""
        masks = [found.kept for found in self.sequences]
        return masks[0] if masks and all(_same(masks[0], other) for other in masks[1:]) else None

    def at(self, layer: str, positions: int) -> Tensor | None:
        """The mask for a layer of so many positions; None where nothing is padded.

        Raises:
            ValueError: if there is padding and no mask, or more than one, is of these positions; or if a sample is
                nothing but padding.
        """
        if not any(found.padded for found in self.sequences):
            return None
        masks = [(found.source, mask) for found in self.sequences if (mask := found.at(positions)) is not None]
        if not masks:
            tokens = " or ".join(map(str, sorted({found.kept.shape[1] for found in self.sequences})))
            raise ValueError(
                f"layer {layer!r} gives {positions} positions for {tokens} tokens, so padding cannot be told apart: "
                f"{_WAY}"
            )
        source, kept = masks[0]
        other = next((name for name, mask in masks if not _same(mask, kept)), None)
        if other is not None:
            raise ValueError(
                f"layer {layer!r} gives {positions} positions, whose padding {source} and {other} tell differently: "
                f"{_WAY}, or batch=, a function that gives the inputs of one sequence"
            )
        if not bool(kept.any(1).all()):
            raise ValueError(f"sample {int((~kept.any(1)).nonzero()[0])} of a batch is nothing but padding")
        return kept


def kept_positions(model: nn.Module, arguments: Mapping[str, Any], samples: int) -> Padding:
    """What the arguments of a forward pass tell of padding.

    Looked for in this order: masks of real positions (``attention_mask``) and of padding (``key_padding_mask``);
    lengths; token numbers that begin or end with the padding token of the model's ``config`` or of its embedding. Where
    there are more sequences of tokens than masks, those without one count as well.
    """
    named = list(_tensors(arguments))
    masks = [found for name, value in named if (found := _of_mask(name, value, samples)) is not None]
    masks += [found for name, value in named if (found := _of_lengths(name, value, named, samples)) is not None]
    tokens = [(name, rows) for name, value in named if (rows := _token_rows(name, value, samples)) is not None]
    pad = _padding_token(model)
    if len(tokens) > len(masks) and (masks or pad is not None):
        told = [Sequences(repr(name), _all(rows) if pad is None else real_tokens(rows, pad)) for name, rows in tokens]
        masks += _unmasked(told, masks)
    return Padding(tuple(masks or _of_either(named, samples)))


def _all(rows: Tensor) -> Tensor:
    return torch.ones_like(rows, dtype=torch.bool)


def _unmasked(told: Sequence[Sequences], masks: Sequence[Sequences]) -> list[Sequences]:
    """The sequences of tokens that no mask belongs to: each mask has the one that it agrees with, or one as long."""
    left = list(told)
    for mask in masks:
        alike = [found for found in left if found.kept.shape == mask.kept.shape]
        own = next((found for found in alike if _same(found.kept, mask.kept)), alike[0] if alike else None)
        left = [found for found in left if found is not own]
    return left


def _of_mask(name: str, value: Tensor, samples: int) -> Sequences | None:
    rows = _mask_rows(value, samples)
    if rows is None:
        return None
    if _TRUE_IS_REAL.search(name):
        return Sequences(repr(name), real_in(rows))
    if _TRUE_IS_PADDING.search(name):
        return Sequences(repr(name), rows > -1 if rows.is_floating_point() and _is_added(rows) else rows == 0)
    return None


def _mask_rows(value: Tensor, samples: int) -> Tensor | None:
    """(samples, positions) of a mask that is the same for all heads and queries."""
    if value.ndim < 2 or len(value) != samples or value.numel() != samples * value.shape[-1] or value.is_complex():
        return None
    return value.reshape(samples, value.shape[-1])


def _is_added(mask: Tensor) -> bool:
    """Whether a mask is added to attention scores: zero for what is real, and very negative for padding."""
    return bool((mask < 0).any()) or (mask.is_floating_point() and not bool((mask != 0).any()))


def real_in(mask: Tensor) -> Tensor:
    """True where an attention mask says that a position is real, whether it marks these or is added to scores."""
    return mask > -1 if mask.dtype != torch.bool and _is_added(mask) else mask != 0


def _of_either(named: Sequence[tuple[str, Tensor]], samples: int) -> list[Sequences]:
    """Both meanings of a mask whose name tells neither: a layer that needs it is told so."""
    for name, value in named:
        rows = _mask_rows(value, samples) if name in _EITHER and value.ndim == 2 else None
        if rows is not None and bool(((rows == 0) | (rows == 1)).all()):
            real, padding = f"{name!r} as a mask of what is real", "as a mask of padding"
            return [Sequences(real, rows != 0), Sequences(padding, rows == 0)]
    return []


def _of_lengths(name: str, value: Tensor, named: Sequence[tuple[str, Tensor]], samples: int) -> Sequences | None:
    if not _LENGTHS.search(name) or value.shape != (samples,) or value.is_floating_point() or not samples:
        return None
    longest = int(value.max())
    sizes = [other.shape[1] for _, other in named if other.ndim >= 2 and len(other) == samples]
    sizes += [len(other) for _, other in named if other.ndim >= 2 and other.shape[1] == samples != len(other)]
    positions = min((size for size in sizes if size >= longest), default=longest)
    kept = torch.arange(positions, device=value.device) < value[:, None]
    return Sequences(repr(name), kept, longest)


def _token_rows(name: str, value: Tensor, samples: int) -> Tensor | None:
    """(samples, positions) of token numbers."""
    whole = not value.is_floating_point() and not value.is_complex() and value.dtype != torch.bool
    if not whole or value.ndim != 2 or _NO_TOKENS.search(name):
        return None
    if len(value) == samples:
        return value
    return value.T if value.shape[1] == samples else None


def real_tokens(rows: Tensor, pad: int) -> Tensor:
    """True from the first to the last token that is no padding: one between two others is a token (as in GPT-2)."""
    real = rows != pad
    return (real.cumsum(1) > 0) & (real.flip(1).cumsum(1).flip(1) > 0)


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one, other.to(one.device))


def _tensors(arguments: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    for name, value in arguments.items():
        if isinstance(value, Tensor):
            if not value.is_nested:  # which has no shape, and no padding
                yield name, value
        elif isinstance(value, Mapping):
            yield from _tensors(value)
        elif isinstance(value, tuple | list):
            yield from _tensors({f"{name}.{index}": part for index, part in enumerate(value)})


def _padding_token(model: nn.Module) -> int | None:
    for module in model.modules():
        chosen = getattr(getattr(module, "config", None), "pad_token_id", None)
        if isinstance(chosen, int):
            return chosen
    found = {
        module.padding_idx
        for module in model.modules()
        if isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.padding_idx is not None
    }
    return found.pop() if len(found) == 1 else None
