"""Sentence encoders: directories as both versions of sentence-transformers save them, and as older ones did."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from making import Edit, Situation, edited, model, removed, without, word_piece_tokenizer, written

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
         "max_position_embeddings": 80}  # fmt: skip
CONFIG, MODULES, WHOLE = "sentence_bert_config.json", "modules.json", "config_sentence_transformers.json"
POOLING = "1_Pooling/config.json"
LOWERED = "5.1 lowers the whole text, special tokens in it too"


def sentences(
    name: str,
    steps: Callable[[Any], Sequence[Any]],
    *edits: Edit,
    limit: int | None = 30,
    head: str = "AutoModel",
    tokenizer: Mapping[str, Any] | None = None,
    prompts: Mapping[str, str] | None = None,
    default: str | None = None,
    refused: str | None = None,
    differs: Mapping[str, str] | None = None,
) -> Situation:
    """`steps(models)` are what comes behind the model. `limit`: max_seq_length. `tokenizer`: its settings."""
    plain = model(name, "BertConfig", head, tokenizer=lambda hf: word_piece_tokenizer(hf, **(tokenizer or {})), **SIZES)

    def make(hf: Any, path: Path) -> None:
        from sentence_transformers import SentenceTransformer, models

        with tempfile.TemporaryDirectory() as made:
            plain.make(hf, Path(made))
            first = models.Transformer(made, max_seq_length=limit)
            whole = SentenceTransformer(
                modules=[first, *steps(models)], device="cpu", prompts=dict(prompts or {}), default_prompt_name=default
            )
            whole.save(str(path))
        for edit in edits:
            edit(path)

    return Situation(name, make, refused, differs=differs or {})


def mean(models: Any) -> list[Any]:
    return [models.Pooling(32, "mean")]


def unit(models: Any) -> list[Any]:
    return [models.Pooling(32, "cls"), models.Normalize()]


def dense(*layers: tuple[int, str, bool]) -> Callable[[Any], list[Any]]:
    """By width, activation, and whether there is a bias."""

    def steps(models: Any) -> list[Any]:
        import torch

        found, width = [models.Pooling(32, "mean")], 32
        for size, activation, bias in layers:
            function = getattr(torch.nn, activation)()
            found.append(models.Dense(width, size, bias=bias, activation_function=function))
            width = size
        return [*found, models.Normalize()]

    return steps


def with_step(kind: str, **config: Any) -> Edit:
    """With one more step at the end, which has no weights."""

    def edit(path: Path) -> None:
        modules = json.loads((path / MODULES).read_text())
        name = f"{len(modules)}_{kind}"
        modules.append({"idx": len(modules), "name": str(len(modules)), "path": name,
                        "type": f"sentence_transformers.models.{kind}"})  # fmt: skip
        (path / MODULES).write_text(json.dumps(modules))
        written(f"{name}/config.json", json.dumps(config))(path)

    return edit


def replaced(file: str, old: str, new: str) -> Edit:
    return lambda path: written(file, (path / file).read_text().replace(old, new))(path)


def moved(old: str, new: str) -> Edit:
    def edit(path: Path) -> None:
        (path / old).rename(path / new)
        modules = json.loads((path / MODULES).read_text())
        (path / MODULES).write_text(
            json.dumps([{**m, "path": new if m["path"] == old else m["path"]} for m in modules])
        )

    return edit


OLD_FLAGS = {"word_embedding_dimension": 32, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": False,
             "pooling_mode_max_tokens": True, "pooling_mode_mean_sqrt_len_tokens": False}  # fmt: skip


SITUATIONS = [
    sentences("sentences-mean", mean),
    sentences("sentences-cls-unit", unit),
    sentences("sentences-max", lambda models: [models.Pooling(32, "max")]),
    sentences("sentences-of-a-masked-model", unit, head="AutoModelForMaskedLM"),
    sentences("sentences-named-as-a-masked-model", unit, edited("config.json", architectures=["BertForMaskedLM"])),
    sentences("sentences-named-as-a-classifier", unit,
              edited("config.json", architectures=["BertForSequenceClassification"])),
    sentences("sentences-limit-of-the-tokenizer", mean, without(CONFIG, "max_seq_length"),
              edited("tokenizer_config.json", model_max_length=17), limit=None),
    sentences("sentences-limit-null", mean, edited(CONFIG, max_seq_length=None),
              edited("tokenizer_config.json", model_max_length=21), limit=None),
    sentences("sentences-limit-nobodys", mean, without(CONFIG, "max_seq_length"),
              without("tokenizer_config.json", "model_max_length", "max_length"), limit=None),
    sentences("sentences-limit-of-the-model", mean, edited("tokenizer_config.json", model_max_length=10**30),
              limit=None),
    sentences("sentences-limit-in-arguments", mean, edited(CONFIG, tokenizer_args={"model_max_length": 13}),
              differs={"sentence_embedding": "5.1 cuts at max_seq_length"}),
    sentences("sentences-no-config", mean, removed(CONFIG)),
    sentences("sentences-an-older-name-of-the-config", mean,
              lambda path: (path / CONFIG).rename(path / "sentence_roberta_config.json")),
    sentences("sentences-lower-case", mean, edited(CONFIG, do_lower_case=True),
              differs={"sentence_embedding": LOWERED}),
    sentences("sentences-lower-case-over-cased", mean, edited(CONFIG, do_lower_case=True),
              tokenizer={"do_lower_case": False},
              differs=dict.fromkeys(("tokens", "pairs"), LOWERED)),
    sentences("sentences-how-to-load", mean, edited(CONFIG, model_args={"attn_implementation": "eager"})),
    sentences("sentences-other-arguments", mean, edited(CONFIG, config_args={"num_hidden_layers": 1}),
              refused="config_kwargs sets num_hidden_layers"),
    sentences("sentences-flags", mean, written(POOLING, json.dumps(OLD_FLAGS))),
    sentences("sentences-weighted", lambda models: [models.Pooling(32, "weightedmean")]),
    sentences("sentences-last-token", lambda models: [models.Pooling(32, "lasttoken")]),
    sentences("sentences-square-root", lambda models: [models.Pooling(32, "mean_sqrt_len_tokens")]),
    sentences("sentences-no-dimension-of-the-pooling", mean, edited(POOLING, word_embedding_dimension=32)),
    sentences("sentences-dense", dense((20, "Tanh", True))),
    sentences("sentences-dense-twice", dense((48, "GELU", False), (20, "Identity", True))),
    sentences("sentences-dense-sigmoid", dense((32, "Sigmoid", True))),
    sentences("sentences-dense-another-activation", dense((32, "SiLU", True)), refused="SiLU"),
    sentences("sentences-dense-elsewhere", dense((20, "ReLU", True)), moved("2_Dense", "projection")),
    sentences("sentences-pooling-elsewhere", mean, moved("1_Pooling", "pooling of tokens")),
    sentences("sentences-dropout", mean, with_step("Dropout", dropout=0.3)),
    sentences("sentences-a-step-that-is-not-built", mean, with_step("LSTM", hidden_dim=3), refused="step LSTM"),
    sentences("sentences-default-prompt", unit, prompts={"query": "query: ", "passage": "passage: "}, default="query"),
    sentences("sentences-prompts-without-a-default", unit, prompts={"query": "query: "}),
    sentences("sentences-prompts-left-out", mean, edited(POOLING, include_prompt=False), prompts={"query": "query: "},
              default="query", refused="include_prompt is false"),
    sentences("sentences-no-whole-config", mean, removed(WHOLE)),
    sentences("sentences-sparse", mean, edited(WHOLE, model_type="SparseEncoder"), refused="SparseEncoder"),
    sentences("sentences-code-of-its-own", mean, replaced(MODULES, "sentence_transformers.", "custom_st."),
              refused="code that comes with the checkpoint"),
    sentences("sentences-model-elsewhere", mean, replaced(MODULES, '"path": ""', '"path": "0_Transformer"'),
              refused="lies in 0_Transformer"),
]  # fmt: skip
