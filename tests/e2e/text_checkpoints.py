"""Tiny checkpoints of encoders, with tokenizers trained here as real ones are, for pipelines and their reference."""

from __future__ import annotations

import pydoc_data.topics
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers as hf

import vocabularies
from encoder_decoder_families import BY_NAME, LONGEST, make_model

CONTEXT = 128  # tokens
SENTENCES = [
    "My name is Sarah Connor and I live in London, near the Thames.",
    "The naïve café owner from Zürich said that Müller & Söhne won't come.",
    "In 1984 George Orwell's book was read all over the world; it isn't forgotten.",
    "Paris is the capital of France, and Berlin is the capital of Germany.",
    "I have a problem with my phone that needs to be resolved as soon as possible!!",
]
NER_LABELS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-MISC-X", "MISC"]
NLI_LABELS = ["contradiction", "neutral", "Entailment"]


def corpus() -> list[str]:
    topics = pydoc_data.topics.topics
    return [*SENTENCES, *(topics[name][:4000] for name in sorted(topics)[:12])]


def word_pieces(kind: type[hf.PreTrainedTokenizerFast], vocab_size: int = 400) -> hf.PreTrainedTokenizerFast:
    """As BERT's: lower case without accents, ## inside of words."""
    lower = tokenizers.normalizers.BertNormalizer(lowercase=True)
    vocabulary = vocabularies.word_pieces(lower, corpus(), vocab_size, ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    made = tokenizers.BertWordPieceTokenizer(vocabulary, lowercase=True)
    return kind(tokenizer_object=made._tokenizer, model_max_length=CONTEXT)


def byte_pairs(vocab_size: int = 500) -> hf.PreTrainedTokenizerFast:
    """As RoBERTa's: bytes, spaces before words."""
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trained = tokenizers.ByteLevelBPETokenizer(add_prefix_space=False)
    trained.train_from_iterator(corpus(), vocab_size=vocab_size, special_tokens=special, show_progress=False)
    trained._tokenizer.post_processor = tokenizers.processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), trim_offsets=True
    )
    return hf.RobertaTokenizerFast(tokenizer_object=trained._tokenizer, model_max_length=CONTEXT)


def unigrams(special: Sequence[str], end: str, vocab_size: int = 300) -> tokenizers.Tokenizer:
    """As T5's and mBART's: pieces with ▁ for a space, ends of their own."""
    tokenizer = tokenizers.SentencePieceUnigramTokenizer()._tokenizer
    pieces = vocabularies.unigrams(corpus(), vocab_size, special)
    tokenizer.model = tokenizers.models.Unigram(pieces, list(special).index("<unk>"))
    tokenizer.add_special_tokens(list(special))
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"$A {end}", special_tokens=[(token, tokenizer.token_to_id(token)) for token in end.split()]
    )
    return tokenizer


SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


def _bert(vocab_size: int, **settings: Any) -> hf.PretrainedConfig:
    return hf.BertConfig(vocab_size=vocab_size, max_position_embeddings=CONTEXT, **SIZES, **settings)


def _roberta(vocab_size: int, **settings: Any) -> hf.PretrainedConfig:
    positions = {"max_position_embeddings": CONTEXT + 2, "type_vocab_size": 1}
    return hf.RobertaConfig(vocab_size=vocab_size, pad_token_id=1, **positions, **SIZES, **settings)


def _distilbert(vocab_size: int, **settings: Any) -> hf.PretrainedConfig:
    sizes = {"dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 4}
    return hf.DistilBertConfig(vocab_size=vocab_size, max_position_embeddings=CONTEXT, **sizes, **settings)


FAMILIES: Mapping[str, tuple[Callable[[], hf.PreTrainedTokenizerFast], Callable[..., hf.PretrainedConfig]]] = {
    "bert": (cache(lambda: word_pieces(hf.BertTokenizerFast)), _bert),
    "roberta": (cache(byte_pairs), _roberta),
    "distilbert": (cache(lambda: word_pieces(hf.DistilBertTokenizerFast)), _distilbert),
}
HEADS: Mapping[str, type] = {
    "fill-mask": hf.AutoModelForMaskedLM,
    "text-classification": hf.AutoModelForSequenceClassification,
    "token-classification": hf.AutoModelForTokenClassification,
    "question-answering": hf.AutoModelForQuestionAnswering,
    "feature-extraction": hf.AutoModel,
}


@dataclass(frozen=True)
class Checkpoint:
    """The directory, and what transformers makes of it."""

    path: Path
    model: Any
    tokenizer: hf.PreTrainedTokenizerFast
    task: str

    def save(self) -> None:
        self.model.save_pretrained(self.path)
        self.tokenizer.save_pretrained(self.path)

    def pipeline(self, task: str, **options: Any) -> Any:
        params = deepcopy(self.model.config.task_specific_params)  # of which transformers takes the prefixes out
        made = hf.pipeline(task, model=self.model, tokenizer=self.tokenizer, device="cpu", **options)
        self.model.config.task_specific_params = params
        return made


@dataclass(frozen=True)
class Recipe:
    family: str
    task: str
    labels: tuple[str, ...] = ()
    settings: tuple[tuple[str, Any], ...] = field(default=())

    def make(self, path: Path) -> Checkpoint:
        """Seeded random weights, large enough that outputs differ from token to token."""
        make_tokenizer, make_config = FAMILIES[self.family]
        tokenizer = make_tokenizer()
        settings = dict(self.settings)
        if self.labels:
            settings["id2label"] = dict(enumerate(self.labels))
            settings["label2id"] = {label: i for i, label in enumerate(self.labels)}
        config = make_config(len(tokenizer), **settings)
        config._attn_implementation = "eager"
        torch.manual_seed(sum(map(ord, repr(self))))
        model = HEADS[self.task].from_config(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                noise = torch.randn_like(parameter)
                parameter.add_(noise * 0.2) if parameter.ndim == 1 else parameter.copy_(noise * 0.3)
        checkpoint = Checkpoint(path, model, tokenizer, self.task)
        checkpoint.save()
        return checkpoint


TASK_PARAMS = {
    "summarization": {
        "prefix": "summarize: ",
        "num_beams": 3,
        "early_stopping": True,
        "length_penalty": 2.0,
        "min_length": 5,
        "max_length": 12,
        "no_repeat_ngram_size": 3,
    },
    "translation_en_to_de": {"prefix": "translate English to German: ", "num_beams": 1},
}


def t5(path: Path) -> Checkpoint:
    """With parameters for two tasks in its config.json, as the original T5 has them."""
    tokenizer = hf.PreTrainedTokenizerFast(
        tokenizer_object=unigrams(["<pad>", "<s>", "</s>", "<unk>"], "</s>"),
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=LONGEST,
    )
    checkpoint = Checkpoint(path, _decoding("t5", len(tokenizer)), tokenizer, "text2text-generation")
    checkpoint.model.config.task_specific_params = TASK_PARAMS
    checkpoint.save()
    return checkpoint


def mbart(path: Path) -> Checkpoint:
    """Of several languages, named by tokens behind the text."""
    languages = ["en_XX", "de_DE", "fr_XX"]
    pieces = unigrams(["<pad>", "<s>", "</s>", "<unk>", "<mask>", *languages], "</s> en_XX")
    path.mkdir()
    pieces.save(str(path / "tokenizer.json"))
    tokenizer = hf.MBartTokenizerFast(
        tokenizer_file=str(path / "tokenizer.json"), src_lang="en_XX", additional_special_tokens=languages
    )
    checkpoint = Checkpoint(path, _decoding("mbart", len(tokenizer)), tokenizer, "text2text-generation")
    checkpoint.save()
    return checkpoint


def _decoding(name: str, vocab_size: int) -> Any:
    def config() -> hf.PretrainedConfig:
        made = BY_NAME[name].config()
        made.vocab_size = vocab_size
        return made

    return make_model(replace(BY_NAME[name], config=config))
