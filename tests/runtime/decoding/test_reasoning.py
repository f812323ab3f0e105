"""A budget of reasoning: when its end is due, and what is forced then."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import edgellm
from edgellm.decoding import Ends, search
from edgellm.decoding.reasoning import due_token, end_reasoning
from edgellm.errors import OptionError
from reference_models import CountingDecoder, beginnings, finish
from tiny_package import TinyConfig, write_package

ONE, MORE = ((7,), (8,)), ((7, 1), (8, 9, 8))


@pytest.mark.parametrize(
    ("prompt", "new", "markers", "due"),
    [
        ([1, 2], [7, 3, 3], ONE, None),
        ([1, 2], [7, 3, 3, 3], ONE, 8),
        ([1, 2], [4, 7, 3, 3, 3], ONE, 8),
        ([1, 7], [3, 3], ONE, None),
        ([1, 7], [3, 3, 3], ONE, 8),
        ([1, 7, 5], [3, 3, 3], ONE, 8),
        ([1, 7], [3, 8, 3, 3, 3], ONE, None),
        ([1, 7, 8], [3, 3, 3, 3], ONE, None),  # the prompt has ended it, too
        ([7, 1, 1, 1, 1], [3, 3, 3, 3], ONE, None),  # a quotation in the prompt
        ([1, 2], [3, 3, 3, 3, 7, 3, 3, 3, 3], ONE, None),  # and in the answer
        ([1, 2], [7, 1, 3, 3], MORE, None),
        ([1, 2], [7, 1, 3, 3, 3], MORE, 8),
        ([1, 2], [7, 1, 3, 3, 3, 8], MORE, 9),
        ([1, 2], [7, 1, 3, 3, 3, 8, 9], MORE, 8),
        ([1, 2], [7, 1, 3, 3, 3, 8, 9, 8], MORE, None),
        ([1, 2], [7, 1, 3, 3, 8], MORE, None),  # its own beginning of the end counts when it goes on otherwise
        ([1, 2], [7, 1, 3, 3, 8, 3], MORE, 8),
        ([1, 7], [1, 3, 3, 3], MORE, 8),  # begun by the prompt, and by the answer
        ([1], [], ONE, None),
    ],
)
def test_when_the_end_is_due(prompt: list[int], new: list[int], markers: tuple[tuple[int, ...], ...], due: int) -> None:
    begin, end = markers
    assert due_token(np.array(prompt + new, np.int64), len(prompt), 3, (begin, end)) == due


def test_nothing_else_stays_where_it_is_due() -> None:
    scores = np.arange(20, dtype=np.float32).reshape(2, 10)
    before = scores.copy()
    ids = [np.array([1, 7, 3]), np.array([1, 7])]
    found = end_reasoning(ids, [2, 2], scores, 1, ONE)
    assert found[0, 8] == 0
    assert np.isneginf(np.delete(found[0], 8)).all()
    assert (found[1] == before[1]).all()
    assert (scores == before).all()
    assert end_reasoning(ids, [2, 2], scores, 2, ONE) is scores


@pytest.mark.parametrize("options", [{}, {"do_sample": True, "seed": 3, "temperature": 0.01}, {"num_beams": 2}])
def test_searches_end_reasoning_and_go_on_by_themselves(options: dict[str, object]) -> None:
    budget = {"reasoning_budget": 2, "reasoning_markers": [[7], [5, 5]]}
    began = beginnings([[1, 7], [1, 1]], Ends(), max_new_tokens=6, **budget, **options)
    for prompt, expected in zip(began, [(8, 9, 5, 5, 6, 7), (2, 3, 4, 5, 6, 7)], strict=True):
        _, result = finish(search(CountingDecoder(), [prompt]))
        assert result[0][0].tokens == expected


def test_a_budget_ends_what_the_chat_template_marks(tmp_path: Path) -> None:
    source = "{% for m in messages %}{{ m.content }}{% endfor %}{% if add_generation_prompt %}<think>\n{% endif %}"
    model = edgellm.load(write_package(tmp_path / "package", TinyConfig(chat_template=source)), threads=1)
    given = {"max_new_tokens": 20, "eos_token_id": None, "suppress_tokens": [*b"</>"]}
    found = model.chat([{"role": "user", "content": "Hi"}], reasoning_budget=5, **given)
    assert bytes(found.tokens[5:13]) == b"</think>"
    with_all = model.chat([{"role": "user", "content": "Hi"}], **given)
    assert found.tokens[:5] == with_all.tokens[:5]
    assert model.generate("Hi", reasoning_budget=5, **given).tokens == model.generate("Hi", **given).tokens


def test_budgets_without_marks(model: edgellm.Model) -> None:
    with pytest.raises(OptionError, match="the package's chat template marks no reasoning"):
        model.generate("Hi", reasoning_budget=5)
    with pytest.raises(OptionError, match=r"reasoning_markers .* has no effect without reasoning_budget"):
        model.generate("Hi", reasoning_markers=[[1], [2]])
    with pytest.raises(OptionError, match=r"reasoning_markers is \[\[1\]\], expected two lists of token ids"):
        model.generate("Hi", reasoning_budget=5, reasoning_markers=[[1]])
    with pytest.raises(OptionError, match="reasoning_markers holds 1000000"):
        model.generate("Hi", reasoning_budget=5, reasoning_markers=[[1], [10**6]])
    found = model.generate("Hi", reasoning_budget=0, reasoning_markers=[[*b"i"], [*b"."]], max_new_tokens=3)
    assert found.tokens[0] == ord(".")
