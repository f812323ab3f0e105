"""Situations: checkpoints as they are met, made by the transformers that runs this program.

`python making.py OUT` makes all of them, a directory each; one that this version of transformers cannot make has a file
`failed` instead. It imports nothing of edgellm: an environment that has transformers will do.
"""

from __future__ import annotations

import json
import pydoc_data.topics
import shutil
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import vocabularies

Edit = Callable[[Path], None]


@dataclass(frozen=True)
class Situation:
    """`make(hf, path)` saves the checkpoint with the transformers `hf`. `refused`: a pattern of the error that the
    export ends in. `versions`: of transformers that can save it. `differs`: what 4.57 reads in another way than 5, by
    the name of the check, and why. `adapters`: of PEFT, in directories of these names, each with its weight. `options`:
    of the export."""

    name: str
    make: Callable[[Any, Path], None]
    refused: str | None = None
    versions: tuple[str, ...] = ("4", "5")
    differs: Mapping[str, str] = field(default_factory=dict)
    adapters: Mapping[str, float] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)


def model(
    name: str,
    config: str,
    head: str,
    *edits: Edit,
    tokenizer: Callable[[Any], Any] | None = None,
    before: Callable[[Any], None] | None = None,
    refused: str | None = None,
    versions: tuple[str, ...] = ("4", "5"),
    differs: Mapping[str, str] | None = None,
    options: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Situation:
    """A tiny seeded checkpoint of the config class `config` with the auto class `head`. `before(model)` changes it
    before it is saved, the `edits` change the directory afterwards, in turn."""

    def make(hf: Any, path: Path) -> None:
        text = None if tokenizer is None else tokenizer(hf)
        sizes = {} if text is None or "vocab_size" in settings else {"vocab_size": len(text)}
        made = seeded(hf, getattr(hf, config)(**{**sizes, **settings}), head, name)
        if before is not None:
            before(made)
        made.save_pretrained(path)
        if text is not None:
            text.save_pretrained(path)
        for edit in edits:
            edit(path)

    return Situation(name, make, refused, versions, differs or {}, options=options or {})


def seeded(hf: Any, config: Any, head: str, name: str) -> Any:
    """Random weights, norms and biases too: 1 and 0 would hide mistakes."""
    import torch

    torch.manual_seed(sum(map(ord, name)))
    made = getattr(hf, head).from_config(config).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.requires_grad:  # not sinusoids
                noise = torch.randn_like(parameter)
                parameter.add_(noise * 0.2) if parameter.ndim == 1 else parameter.copy_(noise * 0.15)
    return made


# --- edits of a directory


def edited(file: str, **values: Any) -> Edit:
    """With these values in a file of JSON."""
    return lambda path: _change(path / file, lambda content: content | values)


def without(file: str, *keys: str) -> Edit:
    return lambda path: _change(path / file, lambda content: {k: v for k, v in content.items() if k not in keys})


def renamed(file: str, **names: str) -> Edit:
    """With keys under other names."""
    return lambda path: _change(path / file, lambda content: {names.get(k, k): v for k, v in content.items()})


def removed(*files: str) -> Edit:
    def edit(path: Path) -> None:
        for file in files:
            (path / file).unlink()

    return edit


def written(file: str, content: str) -> Edit:
    def edit(path: Path) -> None:
        (path / file).parent.mkdir(exist_ok=True)
        (path / file).write_text(content, encoding="utf-8")

    return edit


def _change(file: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    file.write_text(json.dumps(change(json.loads(file.read_text()) if file.is_file() else {})))


# --- tokenizers, trained as real ones are


@cache
def corpus() -> tuple[str, ...]:
    topics = pydoc_data.topics.topics
    return tuple(topics[name][:6000] for name in sorted(topics)[:20])


def byte_pairs(special: Sequence[str] = ("<|endoftext|>",), size: int = 360) -> Any:
    """Byte-level BPE without a space before the first word, as GPT-2's."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    settings = {"initial_alphabet": alphabet, "special_tokens": list(special), "show_progress": False}
    tokenizer.train_from_iterator(corpus(), trainers.BpeTrainer(vocab_size=size, **settings))
    return tokenizer


def byte_tokenizer(hf: Any, **settings: Any) -> Any:
    """The usual one: it says itself what it is."""
    names = {"eos_token": "<|endoftext|>", "bos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    inputs = {"model_input_names": ["input_ids", "attention_mask"]}
    return hf.PreTrainedTokenizerFast(tokenizer_object=byte_pairs(), **{**names, **inputs, **settings})


def word_pieces(size: int = 400) -> Any:
    """As BERT's: lower case without accents, ## inside of words."""
    import tokenizers

    lower = tokenizers.normalizers.BertNormalizer(lowercase=True)
    vocabulary = vocabularies.word_pieces(lower, corpus(), size, ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    return tokenizers.BertWordPieceTokenizer(vocabulary, lowercase=True)._tokenizer


def from_files(files: Mapping[str, Any]) -> Callable[[Any], Any]:
    """What AutoTokenizer makes of files of these names, and saves again in its own way. A dict is JSON; a tokenizer of
    the tokenizers library is saved."""

    def opened(hf: Any) -> Any:
        import tempfile

        with tempfile.TemporaryDirectory() as made:
            for name, content in files.items():
                target = Path(made) / name
                if callable(content):
                    content().save(str(target))
                else:
                    target.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
            return hf.AutoTokenizer.from_pretrained(made)

    return opened


def word_piece_tokenizer(hf: Any, **settings: Any) -> Any:
    """BERT's."""
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("unk", "sep", "pad", "cls", "mask")}
    config = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, **names, **settings}
    return from_files({"tokenizer.json": word_pieces, "tokenizer_config.json": config})(hf)


def roberta_byte_pairs() -> Any:
    from tokenizers import AddedToken, processors

    tokenizer = byte_pairs(("<s>", "<pad>", "</s>", "<unk>"))
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=True)
    return tokenizer


SENTENCE = {"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "unk_token": "<unk>",
            "pad_token": "<pad>", "mask_token": "<mask>"}  # fmt: skip


def roberta_tokenizer(hf: Any) -> Any:
    config = {"tokenizer_class": "RobertaTokenizer", "add_prefix_space": False, **SENTENCE}
    return from_files({"tokenizer.json": roberta_byte_pairs, "tokenizer_config.json": config})(hf)


def unigrams() -> Any:
    """As XLM-RoBERTa's: pieces with ▁ for a space."""
    import tokenizers
    from tokenizers import models, processors

    tokenizer = tokenizers.SentencePieceUnigramTokenizer()._tokenizer
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    tokenizer.model = models.Unigram(vocabularies.unigrams(corpus(), 400, special), special.index("<unk>"))
    tokenizer.add_special_tokens(special)
    tokenizer.add_special_tokens([tokenizers.AddedToken("<mask>", lstrip=True, special=True)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer


def unigram_tokenizer(hf: Any) -> Any:
    config = {"tokenizer_class": "XLMRobertaTokenizer", **SENTENCE}
    return from_files({"tokenizer.json": unigrams, "tokenizer_config.json": config})(hf)


def make_all(out: Path) -> None:
    import transformers

    from situations import every

    version = transformers.__version__.split(".")[0]
    for situation in every():
        path = out / situation.name
        if version not in situation.versions:
            continue
        try:
            situation.make(transformers, path)
        except Exception:
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir(parents=True)
            (path / "failed").write_text(traceback.format_exc())


if __name__ == "__main__":
    make_all(Path(sys.argv[1]))
