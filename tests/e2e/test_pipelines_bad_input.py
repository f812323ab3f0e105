"""What pipelines say of packages, inputs and options that do not fit; and sentence-similarity."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgellm
import edgellm_export
from edgellm import errors
from text_checkpoints import NER_LABELS, NLI_LABELS, SENTENCES, Recipe, t5

LONG = " ".join(SENTENCES * 3)
RECIPES = {
    "fill-mask": Recipe("bert", "fill-mask"),
    "text-classification": Recipe("bert", "text-classification", tuple(NLI_LABELS)),
    "token-classification": Recipe("bert", "token-classification", tuple(NER_LABELS)),
    "question-answering": Recipe("bert", "question-answering"),
    "feature-extraction": Recipe("bert", "feature-extraction"),
}
POOLING = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}


def sentence_encoder(path: Path) -> None:
    """Makes a sentence encoder of a plain one."""
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    (path / "1_Pooling").mkdir()
    (path / "modules.json").write_text(json.dumps(modules))
    (path / "1_Pooling" / "config.json").write_text(json.dumps(POOLING))
    (path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 24}))


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """By task; "sentences" is a sentence encoder."""

    @cache
    def make(name: str) -> Path:
        directory = tmp_path_factory.mktemp(name)
        if name == "text2text-generation":
            t5(directory / "checkpoint")
        else:
            RECIPES["feature-extraction" if name == "sentences" else name].make(directory / "checkpoint")
        if name == "sentences":
            sentence_encoder(directory / "checkpoint")
        return edgellm_export.export(
            directory / "checkpoint", directory / "package", precision="fp32", verify_quality=False, calibrate=False
        ).path

    return make


@pytest.mark.parametrize(
    ("task", "made_for", "fitting"),
    [
        ("fill-mask", "text-classification", "text-classification, text-ranking, zero-shot-classification"),
        ("ner", "fill-mask", "fill-mask"),
        ("question-answering", "feature-extraction", "feature-extraction, sentence-similarity"),
        ("text-generation", "text2text-generation", "text2text-generation, summarization, translation"),
        ("translation_en_to_de", "token-classification", "token-classification"),
    ],
)
def test_wrong_package(task: str, made_for: str, fitting: str, package: Callable[[str], Path]) -> None:
    expected = f"a package for {made_for}, and {task} needs one for [a-z0-9-]+; this package can do {fitting}$"
    for given in (package(made_for), edgellm.load(package(made_for), threads=1)):
        with pytest.raises(errors.TaskError, match=expected):
            edgellm.pipeline(task, given)


@pytest.mark.parametrize(
    ("task", "inputs", "options", "message"),
    [
        ("fill-mask", "no mask here", {}, r"there is no mask token \(\[MASK\]\) in 'no mask here'"),
        ("fill-mask", "", {}, "there is no mask token"),
        ("fill-mask", "a [MASK]", {"top_k": 0}, "top_k is 0"),
        ("fill-mask", "a [MASK]", {"targets": []}, r"targets is \[\]"),
        ("fill-mask", "a [MASK]", {"tokenizer_kwargs": {"stride": 1}}, "no option 'stride'"),
        ("fill-mask", f"[MASK] {LONG}", {}, "this model takes at most 128"),
        ("fill-mask", 7, {}, "takes a text or a list of texts, found int"),
        ("fill-mask", ["a [MASK]", None], {}, "expected text, found NoneType"),
        ("fill-mask", "a [MASK]", {"topk": 3}, "no option 'topk'; did you mean 'top_k'"),
        ("fill-mask", "a [MASK]", {"batch_size": 0}, "batch_size is 0"),
        ("text-classification", "a", {"function_to_apply": "relu"}, "function_to_apply is 'relu'"),
        ("text-classification", "a", {"top_k": -1}, "top_k is -1"),
        ("text-classification", {"text": "a", "pair": "b"}, {}, "found the keys text, pair"),
        ("text-classification", [["a", "b"]], {}, "expected text, found list"),
        ("text-classification", LONG, {"truncation": "yes"}, "truncation is 'yes'"),
        ("text-classification", LONG, {"max_length": 1}, "cannot be cut to 1 tokens"),
        ("text-classification", LONG, {}, "this model takes at most 128"),
        ("ner", "a", {"aggregation_strategy": "mean"}, "aggregation_strategy is 'mean', expected one of none, simple"),
        ("ner", "a", {"stride": 3}, "stride needs an aggregation_strategy"),
        ("ner", LONG, {"stride": 126, "aggregation_strategy": "max"}, "the stride is 126 tokens, expected 0 to 125"),
        ("ner", "a b", {"is_split_into_words": True}, "found a text"),
        ("ner", [["a", "b"]], {}, "lists of words need is_split_into_words=True"),
        ("question-answering", {"question": "", "context": "a"}, {}, "the question is empty"),
        ("question-answering", {"question": "a", "context": ""}, {}, "the context is empty"),
        ("question-answering", {"question": "a"}, {}, 'expected {"question": ..., "context": ...}'),
        ("question-answering", "a", {}, 'expected {"question": ..., "context": ...}'),
        ("question-answering", {"question": "a", "context": "b"}, {"top_k": 0}, "top_k is 0"),
        ("question-answering", {"question": "a", "context": "b"}, {"doc_stride": 400}, "doc_stride is 400"),
        ("question-answering", {"question": LONG, "context": LONG}, {}, "no room for a piece of the long text"),
        ("zero-shot-classification", "a", {}, "candidate_labels is empty or missing"),
        ("zero-shot-classification", "a", {"candidate_labels": " , "}, "candidate_labels is empty or missing"),
        ("zero-shot-classification", "", {"candidate_labels": "b"}, "needs a text, found an empty one"),
        ("zero-shot-classification", "a", {"candidate_labels": "b", "hypothesis_template": "x"}, "text with {} where"),
        ("zero-shot-classification", "a", {"candidate_labels": "b", "hypothesis_template": "{x}"}, "cannot be filled"),
        ("feature-extraction", "a", {"truncation": True, "tokenize_kwargs": {"truncation": True}}, "given twice"),
        ("sentence-similarity", {"source_sentence": "a", "sentences": []}, {}, "sentences is one text or empty"),
        ("sentence-similarity", "a", {}, "takes source_sentence and sentences"),
        ("summarization", "a", {"num_beams": 0}, "num_beams is 0"),
        ("summarization", "a", {"no_such_option": 1}, "unknown option 'no_such_option'"),
        ("translation", "a", {"src_lang": "xx_XX"}, "src_lang is 'xx_XX'"),
    ],
)
def test_bad_calls(
    task: str, inputs: Any, options: dict[str, Any], message: str, package: Callable[[str], Path]
) -> None:
    made_for = {
        "ner": "token-classification",
        "zero-shot-classification": "text-classification",
        "sentence-similarity": "sentences",
        "summarization": "text2text-generation",
        "translation": "text2text-generation",
    }.get(task, task)
    pipe = edgellm.pipeline(task, package(made_for), threads=1)
    with pytest.raises((errors.InputError, errors.OptionError), match=message) as caught:
        pipe(inputs, **options)
    assert "\n" not in str(caught.value)


def test_questions_and_contexts_that_do_not_pair(package: Callable[[str], Path]) -> None:
    pipe = edgellm.pipeline("question-answering", package("question-answering"))
    for asked, message in [
        ({"question": ["a", "b"], "context": ["c"]}, "there are 2 questions and 1 contexts"),
        ({"question": "a", "context": ["c"]}, "question is one text and context is not"),
        ({"question": "a"}, "takes question= and context="),
        ({}, "takes question= and context="),
    ]:
        with pytest.raises(errors.InputError, match=re.escape(message)):
            pipe(**asked)


def test_pipelines_that_cannot_be() -> None:
    with pytest.raises(errors.OptionError, match="there is no task 'sumarization'; did you mean 'summarization'"):
        edgellm.pipeline("sumarization", edgellm.__path__[0])
    with pytest.raises(errors.OptionError, match="a pipeline needs a package"):
        edgellm.pipeline("ner")


def test_options_are_checked_when_a_pipeline_is_made(package: Callable[[str], Path]) -> None:
    with pytest.raises(errors.OptionError, match="ner has no option 'tokenizer'"):
        edgellm.pipeline("ner", package("token-classification"), tokenizer="bert")


def test_devices_as_hugging_face_spells_them(package: Callable[[str], Path]) -> None:
    assert edgellm.pipeline("fill-mask", package("fill-mask"), device=-1).model.info.device == "cpu"
    for device in (0, "cuda:0"):
        with pytest.raises(errors.ProviderError, match="exported for the CPU and cannot run on CUDA"):
            edgellm.pipeline("fill-mask", package("fill-mask"), device=device)
    with pytest.raises(errors.OptionError, match="device is 1, expected"):
        edgellm.pipeline("fill-mask", package("fill-mask"), device=1)


def test_labels_without_entailment(tmp_path: Path) -> None:
    Recipe("bert", "text-classification", ("A", "B")).make(tmp_path / "checkpoint")
    made = edgellm_export.export(
        tmp_path / "checkpoint", tmp_path / "package", precision="fp32", verify_quality=False, calibrate=False
    )
    with pytest.raises(errors.TaskError, match="a label that begins with 'entail'; this package's labels are A, B"):
        edgellm.pipeline("zero-shot-classification", made.path)


def test_no_mask_in_the_vocabulary_and_no_tokenizer(package: Callable[[str], Path], tmp_path: Path) -> None:
    changed = shutil.copytree(package("fill-mask"), tmp_path / "changed")
    manifest = json.loads((changed / "edgellm.json").read_text())
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        manifest["files"].pop(name, None)
    (changed / "edgellm.json").write_text(json.dumps(manifest))
    (changed / "tokenizer_config.json").write_text(json.dumps({"mask_token": "<no such token>"}))
    with pytest.raises(errors.InputError, match="tokenizer has no mask token"):
        edgellm.pipeline("fill-mask", changed)
    (changed / "tokenizer.json").unlink()
    manifest["files"].pop("tokenizer.json")
    (changed / "edgellm.json").write_text(json.dumps(manifest))
    with pytest.raises(errors.InputError, match="this package has no tokenizer"):
        edgellm.pipeline("fill-mask", changed)


def test_sentence_similarity(package: Callable[[str], Path]) -> None:
    model = edgellm.load(package("sentences"), threads=1)
    pipe = edgellm.pipeline("sentence-similarity", model)
    vectors = model.embed(SENTENCES, truncation="longest_first").astype(np.float64)
    unit = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    expected = unit[1:] @ unit[0]
    found = pipe(SENTENCES[0], SENTENCES[1:])
    assert found == pytest.approx(expected.tolist(), abs=1e-5)
    one = {"source_sentence": SENTENCES[0], "sentences": SENTENCES[1:]}
    assert pipe(one) == pipe(**one) == pipe(SENTENCES[0], sentences=SENTENCES[1:]) == found
    assert pipe([one, one]) == [found, found]
    with pytest.raises(errors.ContextOverflowError):
        pipe(LONG, SENTENCES, truncation=False)


def test_sentence_similarity_needs_a_sentence_encoder(package: Callable[[str], Path]) -> None:
    pipe = edgellm.pipeline("sentence-similarity", package("feature-extraction"))
    with pytest.raises(errors.TaskError, match="how to make one vector of a text"):
        pipe("a", ["b"])
