"""Batches of token numbers, as a causal language model takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from neuralcollapse.measurement.padding import real_in

_TOKENS = "give batches of token numbers: a (B, T) tensor, or a mapping with input_ids, as tokenizers return"


def token_inputs(batch: Any) -> dict[str, Any]:
    """Arguments of the forward pass; labels are left out, as the tokens themselves are the labels.

    In a tuple the tokens come first, and a part of zeros and ones of their shape is their attention mask.

    Raises:
        ValueError: if the batch holds no (B, T) token numbers with T of at least 2, or more than one possible mask.
        TypeError: if the tokens are not integers.
    """
    if isinstance(batch, tuple | list) and batch and isinstance(batch[0], Tensor):
        batch = _named(batch)
    named = {"input_ids": batch} if isinstance(batch, Tensor) else batch
    if not isinstance(named, Mapping) or not isinstance(named.get("input_ids"), Tensor):
        raise ValueError(f"the token_loader gave a {type(batch).__name__}: {_TOKENS}")
    tokens = named["input_ids"]
    if tokens.is_floating_point() or tokens.dtype == torch.bool:
        raise TypeError(f"input_ids have dtype {tokens.dtype}: expected integers, one token number per position")
    if tokens.ndim != 2 or tokens.shape[1] < 2:
        raise ValueError(f"input_ids have shape {tuple(tokens.shape)}: expected (B, T) with T at least 2")
    return {str(name): value for name, value in named.items() if name != "labels"}


def real_positions(named: Mapping[str, Any]) -> Tensor:
    """(B, T), True for what is no padding.

    Raises:
        ValueError: if the attention mask is not one number per position.
    """
    tokens, mask = named["input_ids"], named.get("attention_mask")
    if mask is None:
        return torch.ones_like(tokens, dtype=torch.bool)
    if mask.numel() != tokens.numel() or mask.shape[0] != tokens.shape[0] or mask.shape[-1] != tokens.shape[1]:
        raise ValueError(
            f"attention_mask has shape {tuple(mask.shape)} for input_ids of shape {tuple(tokens.shape)}: give one "
            "number per position, (B, T), so that padding can be told apart"
        )
    return real_in(mask.reshape(tokens.shape))


def _named(parts: Sequence[Any]) -> dict[str, Any]:
    """The tokens of a tuple, and the mask that it holds.

    Raises:
        ValueError: if there is more than one part that could be the mask.
    """
    tokens, *others = parts
    alike = [part for part in others if isinstance(part, Tensor) and part.shape == tokens.shape]
    masks = [part for part in alike if _marks(part)]
    if not masks:
        return {"input_ids": tokens}
    if len(masks) > 1 or (_is_binary(tokens) and masks[0].dtype == tokens.dtype):
        raise ValueError(
            f"the token_loader gave a tuple of {len(parts)}, in which it cannot be told which part is the attention "
            "mask: give mappings with input_ids and attention_mask"
        )
    return {"input_ids": tokens, "attention_mask": masks[0]}


def _marks(part: Tensor) -> bool:
    """Whether it could be a mask: zeros and ones, and a one in every row, as no sample is nothing but padding."""
    return _is_binary(part) and bool((part == 1).any(1).all())


def _is_binary(part: Tensor) -> bool:
    return not part.is_complex() and bool(((part == 0) | (part == 1)).all())
