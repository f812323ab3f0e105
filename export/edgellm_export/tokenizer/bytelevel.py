"""tokenizer.json from vocab.json and merges.txt: GPT-2's scheme, which RoBERTa and BART took over."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from edgellm.errors import CheckpointError, UnsupportedModelError
from edgellm.text.tokenizer_errors import library_errors
from edgellm_export.checkpoint.json_file import read_json, read_text
from edgellm_export.tokenizer.vocabulary import TokenKind, Vocabulary, special_token

VOCAB, MERGES = "vocab.json", "merges.txt"
# What the two files leave out is how text is cut: by the class that used them, or the model that has them.
PRE_TOKENIZERS = {"GPT2Tokenizer": "gpt-2", "Qwen2Tokenizer": "qwen2"}
ROBERTA = ("RobertaTokenizer", "BartTokenizer")
CLASSES = {"gpt2": "GPT2Tokenizer", "qwen2": "Qwen2Tokenizer", "roberta": "RobertaTokenizer", "bart": "BartTokenizer"}
SPECIAL = {"bos": "<s>", "eos": "</s>", "unk": "<unk>", "sep": "</s>", "pad": "<pad>", "cls": "<s>", "mask": "<mask>"}


def class_of(path: Path, config: Mapping[str, Any], model_type: Any) -> str:
    """The tokenizer's class, without "Fast". config: tokenizer_config.json. Raises UnsupportedModelError."""
    name = config.get("tokenizer_class") or CLASSES.get(str(model_type))
    plain = name.removesuffix("Fast") if isinstance(name, str) else name
    if plain not in (*PRE_TOKENIZERS, *ROBERTA):
        raise UnsupportedModelError(
            f"{path} has {VOCAB} and {MERGES} but no tokenizer.json, and tokenizer class {name!r} is not one of "
            f"{', '.join((*PRE_TOKENIZERS, *ROBERTA))}; save the tokenizer once with transformers' AutoTokenizer"
        )
    return str(plain)


def read_vocabulary(path: Path, pre: str) -> Vocabulary:
    """The vocabulary of vocab.json and merges.txt. `pre` is the pre-tokenizer's name. Raises CheckpointError."""
    ids = read_json(path / VOCAB)
    if sorted(i for i in ids.values() if type(i) is int) != list(range(len(ids))):
        raise CheckpointError(f"{path / VOCAB} does not number its tokens from 0 without gaps")
    tokens = sorted(ids, key=ids.__getitem__)
    lines = read_text(path / MERGES).split("\n")
    pairs = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
    if any(len(pair) != 2 for pair in pairs):
        raise CheckpointError(f"{path / MERGES} has a line that is not two tokens with a space between")
    return Vocabulary(
        origin=str(path),
        tokens=tokens,
        kinds=[int(TokenKind.NORMAL)] * len(tokens),
        merges=[(left, right) for left, right in pairs],
        pre=pre,
    )


def roberta_tokenizer(path: Path, config: Mapping[str, Any], added: Mapping[int, tuple[str, bool]]) -> bytes:
    """The content of tokenizer.json for RoBERTa and BART: one text is <s> A </s>, two are <s> A </s></s> B </s>.
    config: tokenizer_config.json, which may say what special tokens are called. added: by id, the text of tokens that
    came after training and whether they are special. Raises CheckpointError."""
    vocabulary = read_vocabulary(path, "gpt-2")
    vocab = vocabulary.ids()
    special = {name: special_token(config, name, usual) for name, usual in SPECIAL.items()}
    missing = [token for token in (special["cls"], special["sep"]) if token not in vocab]
    if missing:
        raise CheckpointError(f"{path / VOCAB} lacks the token {missing[0]}; is it the vocabulary of a RoBERTa model?")
    with library_errors(lambda reason: CheckpointError(f"{path / MERGES} does not fit {VOCAB} ({reason})")):
        tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=list(vocabulary.merges or ())))
    add_space = config.get("add_prefix_space") is True
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_space)
    tokenizer.decoder = decoders.ByteLevel()
    sep, cls = special["sep"], special["cls"]
    tokenizer.post_processor = processors.RobertaProcessing(
        (sep, vocab[sep]), (cls, vocab[cls]), trim_offsets=True, add_prefix_space=add_space
    )
    tokenizer.add_tokens([AddedToken(t, normalized=False, special=s) for _, (t, s) in sorted(added.items())])
    wrong = [text for index, (text, _) in added.items() if tokenizer.token_to_id(text) != index]
    if wrong:
        raise CheckpointError(f"{path}: the added token {wrong[0]!r} does not follow {VOCAB}'s ids without gaps")
    known = [token for token in dict.fromkeys(special.values()) if token in vocab]
    mask = special["mask"]
    tokenizer.add_special_tokens([AddedToken(t, lstrip=t == mask, normalized=False, special=True) for t in known])
    return str(tokenizer.to_str()).encode()
