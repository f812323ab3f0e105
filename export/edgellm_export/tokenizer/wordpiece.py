"""tokenizer.json from vocab.txt, for BERT and its kin: words cut into the longest pieces that the vocabulary has."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from edgellm.errors import CheckpointError
from edgellm_export.checkpoint.json_file import read_text
from edgellm_export.tokenizer.vocabulary import special_token

VOCAB = "vocab.txt"
SPECIAL = {"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "cls": "[CLS]", "mask": "[MASK]"}


def wordpiece_tokenizer(path: Path, config: Mapping[str, Any]) -> bytes:
    """The content of tokenizer.json. config: tokenizer_config.json, which may say how text is normalized and what
    special tokens are called. Raises CheckpointError."""
    vocab = _read_vocab(path / VOCAB)
    special = {name: special_token(config, name, usual) for name, usual in SPECIAL.items()}
    missing = [token for token in (special["unk"], special["sep"], special["cls"]) if token not in vocab]
    if missing:
        raise CheckpointError(f"{path / VOCAB} lacks the token {missing[0]}; is it the vocabulary of a BERT model?")
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token=special["unk"]))
    tokenizer.normalizer = normalizers.BertNormalizer(
        lowercase=config.get("do_lower_case", True) is not False,
        strip_accents=config.get("strip_accents"),
        handle_chinese_chars=config.get("tokenize_chinese_chars", True) is not False,
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    sep, cls = special["sep"], special["cls"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0",
        pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
        special_tokens=[(cls, vocab[cls]), (sep, vocab[sep])],
    )
    tokenizer.add_special_tokens([token for token in special.values() if token in vocab])
    return str(tokenizer.to_str()).encode()


def _read_vocab(path: Path) -> dict[str, int]:
    """The ids of a file's tokens, which have a line each, numbered from 0."""
    lines = read_text(path).split("\n")
    return {line.rstrip("\r"): i for i, line in enumerate(lines[:-1] if lines[-1] == "" else lines)}
