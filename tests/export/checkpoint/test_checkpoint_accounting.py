from __future__ import annotations

import time

import numpy as np
import pytest

from edgellm.errors import TensorError
from edgellm_export.architectures import gpt2
from edgellm_export.architectures.names import USUAL
from edgellm_export.checkpoint import TensorReader, accounting
from edgellm_export.checkpoint.tensors import ArrayTensor, LazyTensor


def tensors(**shapes: tuple[int, ...]) -> dict[str, LazyTensor]:
    return {name: ArrayTensor(name, np.ones(shape, np.float32)) for name, shape in shapes.items()}


def test_everything_taken_is_fine() -> None:
    reader = TensorReader(tensors(a=(2, 3), b=(4,)))
    assert reader.take("a", (2, 3)).rows(0, 1).tolist() == [[1, 1, 1]]
    assert reader.optional("b") is not None
    assert reader.optional("c") is None
    reader.finish()


def test_all_problems_come_in_one_error() -> None:
    reader = TensorReader(tensors(a=(2, 3), b=(4,), q_proj=(1,), extra=(1,)))
    zeros = reader.take("q_projs", (5, 2))
    assert zeros.shape == (5, 2)
    assert zeros.rows(1, 3).tolist() == [[0, 0], [0, 0]]
    assert reader.take("a", (3, 2)).shape == (3, 2)
    with pytest.raises(TensorError) as error:
        reader.finish()
    message = str(error.value)
    assert "missing (1):\n    q_projs [5, 2] (did you mean 'q_proj'?)" in message
    assert "a has shape [2, 3], expected [3, 2]" in message
    assert "not used (3):\n    b\n    q_proj\n    extra" in message


def test_known_leftovers_are_ignored() -> None:
    left = {"model.layers.0.self_attn.rotary_emb.inv_freq": (4,), "h.0.attn.bias": (1, 1), "h.0.attn.masked_bias": ()}
    TensorReader(tensors(**left), ignore=(*USUAL.unused, *gpt2.NAMES.unused)).finish()
    with pytest.raises(TensorError, match="not used"):
        TensorReader(tensors(**left)).finish()


def test_optional_tensors_of_another_shape_are_reported() -> None:
    reader = TensorReader(tensors(bias=(3,)))
    assert reader.optional("bias", (4,)) is not None
    with pytest.raises(TensorError, match=r"bias has shape \[3\], expected \[4\]"):
        reader.finish()


def test_models_of_many_tensors_are_accounted_for_in_time() -> None:
    names = [f"model.layers.{number}.weight" for number in range(20_000)]
    reader = TensorReader(tensors(**dict.fromkeys(names, (1,))))
    for name in names:
        reader.take(name, (1,))
    begin = time.process_time()
    reader.finish()
    assert time.process_time() - begin < 1


def test_hints_are_looked_for_where_they_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(accounting, "nearest", lambda name, _: asked.append(name) or "expected another")
    reader = TensorReader(tensors(extra=(1,)))
    for index in range(50):
        reader.take(f"layer.{index}", (1,))
    with pytest.raises(TensorError, match=r"layer.19 \[1\] \(nothing like it\)\n +... and 30 more"):
        reader.finish()
    assert len(asked) == 20


def test_long_lists_are_cut() -> None:
    reader = TensorReader({})
    for index in range(30):
        reader.take(f"layer.{index}", (1,))
    with pytest.raises(TensorError, match=r"missing \(30\)(.|\n)*and 10 more"):
        reader.finish()
