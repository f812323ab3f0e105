"""edgellm.pipeline against transformers' on the same checkpoints: equal shapes, labels, spans and words, scores within
1e-5: of a probability, or of a larger score's own size, as float32 rounds."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers as hf
from click.testing import CliRunner

import edgellm
import edgellm_export
import text_checkpoints
from edgellm.cli import cli
from edgellm.pipelines.base import Pipeline
from families import CONTEXT
from text_checkpoints import NER_LABELS, NLI_LABELS, SENTENCES, Checkpoint, Recipe

TOLERANCE = 1e-5
FAMILIES = ["bert", "roberta", "distilbert"]
LONG = " ".join([*SENTENCES, *SENTENCES[::-1]])


Make = Callable[[Any, Path], Checkpoint]


def side_by_side(make: Make, directories: pytest.TempPathFactory) -> Callable[..., Any]:
    """The pipeline of a task on a checkpoint that `make` makes of a recipe: ours on its float32 package, and
    transformers'."""

    @cache
    def made(recipe: Any) -> tuple[Any, Checkpoint]:
        directory = directories.mktemp("checkpoint")
        checkpoint = make(recipe, directory / "checkpoint")
        package = edgellm_export.export(
            checkpoint.path, directory / "package", precision="fp32", verify_quality=False, calibrate=False
        )
        return edgellm.load(package.path, threads=1), checkpoint

    def pipelines(task: str, recipe: Any, **options: Any) -> tuple[Any, Any]:
        model, checkpoint = made(recipe)
        return edgellm.pipeline(task, model, **options), checkpoint.pipeline(task, **options)

    return pipelines


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    return side_by_side(Recipe.make, tmp_path_factory)


def assert_same(ours: Any, theirs: Any) -> None:
    if isinstance(theirs, Mapping):
        assert list(ours) == list(theirs)
        for key in theirs:
            assert_same(ours[key], theirs[key])
    elif isinstance(theirs, list):
        assert isinstance(ours, list)
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert_same(one, other)
    elif isinstance(theirs, float | np.floating):
        assert type(ours) is float
        assert ours == pytest.approx(float(theirs), rel=TOLERANCE, abs=TOLERANCE)
    else:
        assert type(ours) is type(theirs)
        assert ours == theirs


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "options", [{}, {"top_k": 2}, {"targets": ["the", "in", "qqq", "zzz"]}, {"targets": "is"}], ids=str
)
@pytest.mark.filterwarnings("ignore:the target")
def test_fill_mask(family: str, options: dict[str, Any], both: Callable[..., Any]) -> None:
    ours, theirs = both("fill-mask", Recipe(family, "fill-mask"))
    mask = theirs.tokenizer.mask_token
    one, two = f"Paris is the {mask} of France.", f"{mask} is the capital {mask} Germany"
    for inputs in (one, two, [one], [one, two]):
        assert_same(ours(inputs, **options), theirs(inputs, **options))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "settings", [(), (("problem_type", "regression"),), (("problem_type", "multi_label_classification"),)], ids=str
)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"top_k": None},
        {"top_k": 1},
        {"top_k": 2},
        {"function_to_apply": "sigmoid"},
        {"function_to_apply": "none", "top_k": 9},
    ],
    ids=str,
)
def test_text_classification(family: str, settings: Any, options: dict[str, Any], both: Callable[..., Any]) -> None:
    recipe = Recipe(family, "text-classification", ("bad", "so so", "good"), settings)
    ours, theirs = both("sentiment-analysis", recipe)
    pair = {"text": SENTENCES[0], "text_pair": SENTENCES[1]}
    for inputs in (SENTENCES[0], "", SENTENCES, pair, [pair, {"text": SENTENCES[2]}]):
        assert_same(ours(inputs, **options), theirs(inputs, **options))
    ours, theirs = both("text-classification", recipe, **options)
    for inputs in (SENTENCES[0], SENTENCES):
        assert_same(ours(inputs), theirs(inputs))
    assert_same(ours(LONG, truncation=True, max_length=16), theirs(LONG, truncation=True, max_length=16))
    assert_same(ours(LONG, truncation=True), theirs(LONG, truncation=True))
    assert_same(ours(LONG, max_length=9, padding=True), theirs(LONG, max_length=9))


def test_text_classification_with_one_label(both: Callable[..., Any]) -> None:
    ours, theirs = both("text-classification", Recipe("bert", "text-classification", ("good",)))
    assert_same(ours(SENTENCES), theirs(SENTENCES))
    assert_same(ours(SENTENCES[0], return_all_scores=True), [[theirs(SENTENCES[0])[0]]])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("strategy", ["none", "simple", "first", "average", "max"])
@pytest.mark.parametrize("ignored", [None, [], ["O", "MISC", "PER"]], ids=str)
@pytest.mark.filterwarnings("ignore:Tokenizer does not support real words", "ignore:`.*` is deprecated")
def test_token_classification(family: str, strategy: str, ignored: Any, both: Callable[..., Any]) -> None:
    ours, theirs = both("ner", Recipe(family, "token-classification", tuple(NER_LABELS)), aggregation_strategy=strategy)
    options = {} if ignored is None else {"ignore_labels": ignored}
    odd = "Zoë's \u200b🙂 ünïcödé--text...  two  spaces\n[SEP] <s> 北京 end"
    for inputs in (SENTENCES[0], SENTENCES, "", LONG, odd, [odd]):
        assert_same(ours(inputs, **options), theirs(inputs, **options))
    if strategy != "none":
        for stride in (0, 7):
            assert_same(ours(LONG + odd, stride=stride, **options), theirs(LONG + odd, stride=stride, **options))
    for older in ({"grouped_entities": True}, {"grouped_entities": True, "ignore_subwords": True}):
        assert_same(ours(LONG, **older), theirs(LONG, **older))
    if family == "roberta":
        return  # the reference refuses lists of words for tokenizers that put no space before the first
    words = SENTENCES[1].split()
    assert_same(ours(words, is_split_into_words=True), theirs(words, is_split_into_words=True))
    several = {"is_split_into_words": True, "delimiter": "_"}
    assert_same(ours([words, words[:2]], **several), theirs([words, words[:2]], **several))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"top_k": 4},
        {"top_k": 3, "align_to_words": False, "max_answer_len": 3},
        {"handle_impossible_answer": True, "top_k": 20},
        {"max_seq_len": 40, "doc_stride": 9, "top_k": 5},
    ],
    ids=str,
)
@pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"
)  # transformers' own
def test_question_answering(family: str, options: dict[str, Any], both: Callable[..., Any]) -> None:
    ours, theirs = both("question-answering", Recipe(family, "question-answering"))
    question = "Where do I live?"
    long = " ".join([LONG, *SENTENCES[::-1]])
    for context in (SENTENCES[0], long):
        asked = {"question": question, "context": context}
        assert_same(ours(**asked, **options), theirs(**asked, **options))
    assert_same(
        ours(question=[question, "Who?"], context=long, **options),
        theirs(question=[question, "Who?"], context=long, **options),
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_feature_extraction(family: str, both: Callable[..., Any]) -> None:
    ours, theirs = both("feature-extraction", Recipe(family, "feature-extraction"))
    for inputs in (SENTENCES[0], SENTENCES[:2]):
        assert_same(ours(inputs), theirs(inputs))
    expected = theirs(LONG, truncation=True, return_tensors=True).numpy()
    np.testing.assert_allclose(ours(LONG, truncation=True, return_tensors=True), expected, atol=TOLERANCE)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("labels", [NLI_LABELS, NLI_LABELS[::-1]], ids=str)
@pytest.mark.parametrize(
    "options", [{}, {"multi_label": True}, {"hypothesis_template": "It is about {}, isn't it?"}], ids=str
)
def test_zero_shot_classification(
    family: str, labels: list[str], options: dict[str, Any], both: Callable[..., Any]
) -> None:
    ours, theirs = both("zero-shot-classification", Recipe(family, "text-classification", tuple(labels)))
    for inputs in (SENTENCES[4], SENTENCES, [SENTENCES[4]], LONG):
        for candidates in (["urgent", "phone", "travel"], "urgent, phone ,travel", ["one"]):
            assert_same(ours(inputs, candidates, **options), theirs(inputs, candidates, **options))


CHAT_TEMPLATE = """{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}
{%- if add_generation_prompt %}<assistant>{% endif %}"""


@pytest.fixture(scope="module")
def generators(checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory, reference: Any) -> Any:
    """text-generation on a tiny Llama, here and in transformers, with what a config.json may say of the task."""
    made = tmp_path_factory.mktemp("generator") / "checkpoint"
    shutil.copytree(checkpoint("llama"), made)
    tokenizer = hf.PreTrainedTokenizerFast(
        tokenizer_file=str(made / "tokenizer.json"),
        model_max_length=CONTEXT,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(made)
    config = json.loads((made / "config.json").read_text())
    config["task_specific_params"] = {"text-generation": {"prefix": "So: ", "max_length": 9, "no_repeat_ngram_size": 2}}
    (made / "config.json").write_text(json.dumps(config))
    model = hf.AutoModelForCausalLM.from_pretrained(made, attn_implementation="eager")
    package = edgellm_export.export(made, made.parent / "package", precision="fp32", verify_quality=False).path
    ours = edgellm.pipeline("text-generation", package, threads=1, do_sample=False, max_new_tokens=12)
    theirs = hf.pipeline(
        "text-generation", model=model, tokenizer=tokenizer, device="cpu", do_sample=False, max_new_tokens=12
    )
    return ours, theirs


CHAT = [{"role": "user", "content": "Why?"}]
OPEN_CHAT = [*CHAT, {"role": "assistant", "content": "It is "}]


@pytest.mark.parametrize(
    "inputs",
    ["Once upon", "", ["Once upon", "a ."], CHAT, OPEN_CHAT, [CHAT, OPEN_CHAT], ("a", "b")],
    ids=["text", "empty", "texts", "chat", "open chat", "chats", "tuple"],
)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"return_full_text": False},
        {"num_beams": 3, "num_return_sequences": 2},
        {"prefix": "x", "skip_special_tokens": False, "clean_up_tokenization_spaces": False},
        {"stop_sequence": "ab", "repetition_penalty": 1.3},
        {"truncation": True, "add_special_tokens": False},
        {"handle_long_generation": "hole", "max_new_tokens": 90},
        {"continue_final_message": True},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore")
def test_text_generation(inputs: Any, options: dict[str, Any], generators: Any) -> None:
    ours, theirs = generators
    if "continue_final_message" in options and inputs in (CHAT, [CHAT, OPEN_CHAT]):
        options = {"continue_final_message": False}
    expected = theirs(list(inputs) if isinstance(inputs, tuple) else inputs, **options)
    assert_same(ours(inputs, **options), expected)


def test_generated_token_ids(generators: Any) -> None:
    ours, theirs = generators
    assert ours("Once", return_tensors=True) == theirs("Once", return_tensors=True)


def test_iterators(generators: Any) -> None:
    ours, _ = generators
    texts = ["Once", "upon", "a time"]
    for size in (None, 2):
        results = ours(iter(texts), batch_size=size)
        assert next(results) == ours("Once")
        assert list(results) == ours(texts[1:])


@pytest.fixture(scope="module")
def seq2seq(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    return side_by_side(lambda name, path: getattr(text_checkpoints, name)(path), tmp_path_factory)


@pytest.mark.parametrize("task", ["text2text-generation", "summarization", "translation", "translation_en_to_de"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"max_new_tokens": 6, "num_beams": 3, "num_return_sequences": 2, "clean_up_tokenization_spaces": True},
        {"stop_sequence": "the", "truncation": True, "num_beams": 1},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore")
def test_text2text(task: str, options: dict[str, Any], seq2seq: Callable[..., Any]) -> None:
    ours, theirs = seq2seq(task, "t5", max_new_tokens=14)
    for inputs in (SENTENCES[3], [SENTENCES[3]], [text[:30] for text in SENTENCES]):
        assert_same(ours(inputs, **options), theirs(inputs, **options))


@pytest.mark.filterwarnings("ignore")
def test_languages(seq2seq: Callable[..., Any]) -> None:
    ours, theirs = seq2seq("translation", "mbart", max_new_tokens=8)
    for source, target in (("en_XX", "de_DE"), ("fr_XX", "en_XX")):
        languages = {"src_lang": source, "tgt_lang": target}
        assert_same(ours(SENTENCES[3], **languages), theirs(SENTENCES[3], **languages))
        tokens = ours(SENTENCES[3], return_tensors=True, **languages)[0]["translation_token_ids"]
        assert tokens[0] == theirs.tokenizer.convert_tokens_to_ids(target)


def test_from_a_shell(both: Callable[..., Any]) -> None:
    """What the commands in docs/commands/run.md give is what the pipelines give."""
    ner, _ = both("ner", Recipe("bert", "token-classification", tuple(NER_LABELS)))
    asked, _ = both("question-answering", Recipe("bert", "question-answering"))
    nli, _ = both("zero-shot-classification", Recipe("bert", "text-classification", tuple(NLI_LABELS)))
    masked, _ = both("fill-mask", Recipe("bert", "fill-mask"))
    question = {"question": "Who?", "context": SENTENCES[0]}
    mask = "Paris is the [MASK] of France."
    for arguments, stdin, expected in [
        (["ner", ner, "-", "--aggregation-strategy", "simple"], "\n".join(SENTENCES),
         [ner(text, aggregation_strategy="simple") for text in SENTENCES]),
        (["question-answering", asked, "Who?", "--context", "-", "--top-k", "3"], SENTENCES[0],
         [asked(**question, top_k=3)]),
        (["zero-shot-classification", nli, *SENTENCES[:2], "--candidate-labels", "a, b", "--multi-label"], "",
         nli(SENTENCES[:2], candidate_labels=["a", "b"], multi_label=True)),
        (["sentiment-analysis", nli, SENTENCES[0], "--text-pair", SENTENCES[1]], "",
         [edgellm.pipeline("text-classification", nli.model)({"text": SENTENCES[0], "text_pair": SENTENCES[1]})]),
        (["fill-mask", masked, mask, "--targets", "the", "--targets", "a"], "", [masked(mask, targets=["the", "a"])]),
    ]:  # fmt: skip
        named = [str(a.model.info.path) if isinstance(a, Pipeline) else a for a in arguments]
        result = CliRunner().invoke(cli, ["run", *named, "--json", "--threads", "1"], input=stdin)
        assert result.exit_code == 0, result.output
        assert [json.loads(line) for line in result.stdout.splitlines()] == expected
