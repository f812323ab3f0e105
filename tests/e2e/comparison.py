"""What transformers says of one prompt, the reference for all tests here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from edgellm_export.float_run.divergence import Comparison
from families import BY_NAME

COLUMNS = 256  # of the vocabulary at once: what is computed of them stays in the processor's cache


def prompt(name: str, length: int, seed: int = 0) -> np.ndarray:
    """Random tokens of a family, none of them special."""
    return np.random.default_rng(seed).integers(3, BY_NAME[name].config().vocab_size, length)


@torch.no_grad()
def reference_logits(model: Any, ids: np.ndarray) -> np.ndarray:
    """[length, vocab]"""
    return fresh(model)(torch.tensor(ids[None])).logits[0].numpy()


def relative(got: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference over largest magnitude."""
    return float(np.abs(got - expected).max() / np.abs(expected).max())


def relative_rms(got: np.ndarray, expected: np.ndarray) -> float:
    """Size of the difference over size of what is expected."""
    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected))


def distributions(reference: np.ndarray, candidate: np.ndarray) -> Comparison:
    """Of logits [length, vocab]."""
    comparison = Comparison(np.full(len(reference), -1))
    for start in range(0, reference.shape[1], COLUMNS):
        columns = slice(start, start + COLUMNS)
        comparison.add(start, reference[:, columns], candidate[:, columns])
    return comparison


def fresh(model: Any) -> Any:
    """Forget the frequencies that dynamic ropes of transformers remember from the last call."""
    for module in model.modules():
        if hasattr(module, "original_inv_freq"):
            module.inv_freq = module.original_inv_freq
            module.max_seq_len_cached = module.original_max_seq_len
    return model


@dataclass(frozen=True)
class Expected:
    """New tokens of each sequence, padding after the end removed, and the scores of beam search."""

    tokens: list[tuple[int, ...]]
    scores: list[float] | None


class Unkept:
    """Where transformers 4.57 keeps what LFM2's convolutions read, for a prompt that is read at once."""

    def __getitem__(self, layer: int) -> Unkept:
        return self

    def copy_(self, state: torch.Tensor) -> None:
        pass


@torch.no_grad()
def hf_generate(model: Any, ids: np.ndarray, **options: Any) -> Expected:
    """Without a cache where that of transformers 4.57 is wrong: LFM2's puts a second token in the place of a first, and
    cannot be reordered, as Mamba2's cannot; and see `has_longrope`."""
    tokens = torch.tensor(ids[None])
    out = fresh(model).generate(
        tokens,
        attention_mask=torch.ones_like(tokens),
        use_cache=not has_longrope(model.config) and model.config.model_type not in ("lfm2", "mamba2"),
        return_dict_in_generate=True,
        output_scores=True,
        **options,
    )
    eos = model.generation_config.eos_token_id
    scores = getattr(out, "sequences_scores", None)
    sequences = [trimmed(row[len(ids) :].tolist(), eos) for row in out.sequences]
    return Expected(sequences, None if scores is None else scores.tolist())


def has_longrope(config: Any) -> bool:
    """Where its tables change over, transformers 4.57 computes the cache anew under a mask of shape [1, 1, 1, 1], and
    all tokens see all others; its logits are then far from its own without a cache, which are the reference here."""
    return (getattr(config, "rope_scaling", None) or {}).get("type") == "longrope"


def trimmed(tokens: Sequence[int], eos: int) -> tuple[int, ...]:
    return tuple(tokens[: tokens.index(eos) + 1] if eos in tokens else tokens)
