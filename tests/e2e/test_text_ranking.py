"""Documents ranked for a query, beside the torch models."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import AddedToken

import edgellm
import edgellm_export
import families
from edgellm.errors import InputError, OptionError, TaskError
from edgellm.pipelines.yes_or_no import ASKED, BEFORE, BEHIND, INSTRUCTION
from encoder_families import make_model, save_checkpoint

QUERY, DOCUMENTS = "what is a cat", ["an animal", "a city in the north", "it", "cats purr"]


@pytest.fixture(scope="module")
def cross_encoder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    out = tmp_path_factory.mktemp("cross")
    made = make_model("bert", "text-classification", id2label={0: "LABEL_0"}, label2id={"LABEL_0": 0})
    save_checkpoint(made, out / "checkpoint")
    edgellm_export.export(out / "checkpoint", out / "package", precision="fp32", verify_quality=False)
    return made, out / "package"


@pytest.mark.parametrize(
    ("saved", "function"),
    [
        ({}, torch.sigmoid),
        ({"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}, lambda x: x),
        ({"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}, lambda x: x),
    ],
)
@torch.no_grad()
def test_a_cross_encoder(saved: dict[str, Any], function: Callable[..., Any], cross_encoder: tuple[Any, Path]) -> None:
    made, package = cross_encoder
    model = edgellm.load(package, threads=1)
    pipe = edgellm.pipeline("text-ranking", model)
    scorer = pipe.__dict__["_scorer"].__dict__
    scorer["config"] = saved
    del scorer["function"]  # which was read from the package
    found = pipe(query=QUERY, documents=DOCUMENTS, return_documents=True)
    expected = []
    for text in DOCUMENTS:
        one = model.tokenizer.encoding(QUERY, text)  # type: ignore[union-attr]
        logits = made(torch.tensor(one.ids[None]), token_type_ids=torch.tensor(one.type_ids[None])).logits
        expected.append(float(function(logits)[0, 0]))
    order = np.argsort(-np.array(expected), kind="stable").tolist()
    assert [each["corpus_id"] for each in found] == order
    assert [each["text"] for each in found] == [DOCUMENTS[i] for i in order]
    assert [each["score"] for each in found] == pytest.approx([expected[i] for i in order], abs=1e-5)
    assert pipe({"query": QUERY, "documents": DOCUMENTS}, top_k=2) == [
        {"corpus_id": each["corpus_id"], "score": each["score"]} for each in found[:2]
    ]
    with pytest.raises(InputError, match="takes query and documents"):
        pipe("a text")
    with pytest.raises(OptionError, match="instruction is for models that generate"):
        pipe(query=QUERY, documents=DOCUMENTS, instruction="a")


def test_models_that_give_no_such_number(tmp_path: Path) -> None:
    save_checkpoint(make_model("bert", "text-classification"), tmp_path / "checkpoint")
    edgellm_export.export(tmp_path / "checkpoint", tmp_path / "package", precision="fp32", verify_quality=False)
    with pytest.raises(TaskError, match="one number for a pair of texts, this one has the labels bad, good, neither"):
        edgellm.pipeline("text-ranking", tmp_path / "package")


@torch.no_grad()
def test_a_model_that_answers_yes_or_no(tmp_path: Path) -> None:
    """As Qwen3-Reranker is asked: its own prompt, and two of its tokens."""
    sized = families._sized(families.hf.Qwen3Config, head_dim=32, max_position_embeddings=700)
    made = families.make_model(families.Family("qwen3-reranker", sized))
    made.save_pretrained(tmp_path / "checkpoint")
    tokenizer = families.tiny_tokenizer(made.config.vocab_size - 4)
    tokenizer.add_tokens([AddedToken(token) for token in ("yes", "no", "<|im_start|>", "<|im_end|>")])
    families.save_tokenizer(tokenizer, tmp_path / "checkpoint")
    edgellm_export.export(tmp_path / "checkpoint", tmp_path / "package", precision="fp32", verify_quality=False)
    pipe = edgellm.pipeline("text-ranking", tmp_path / "package")
    found = pipe(query=QUERY, documents=DOCUMENTS)
    expected = []
    for text in DOCUMENTS:
        ids = tokenizer.encode(BEFORE + ASKED.format(INSTRUCTION, QUERY, text) + BEHIND).ids
        logits = made(torch.tensor([ids])).logits[0, -1]
        pair = logits[[tokenizer.token_to_id("no"), tokenizer.token_to_id("yes")]]
        expected.append(float(torch.softmax(pair, dim=0)[1]))
    assert {each["corpus_id"]: each["score"] for each in found} == pytest.approx(dict(enumerate(expected)), abs=1e-4)
    assert found[0]["score"] == max(each["score"] for each in found)
    with pytest.raises(OptionError, match="leaves no room for a document"):
        pipe(query=QUERY, documents=DOCUMENTS, max_length=20)


def test_a_model_without_the_tokens(tmp_path: Path) -> None:
    families.save_checkpoint(families.make_model(families.BY_NAME["llama"]), tmp_path / "checkpoint")
    edgellm_export.export(tmp_path / "checkpoint", tmp_path / "package", precision="fp32", verify_quality=False)
    assert json.loads((tmp_path / "package" / "config.json").read_text())["model_type"] == "llama"
    with pytest.raises(TaskError, match="has no token 'no'"):
        edgellm.pipeline("text-ranking", tmp_path / "package")
