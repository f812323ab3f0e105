"""ESM's tokenizer: proteins, of which every token of the vocabulary is found wherever it stands, and what is between
them is unknown, word by word."""

from __future__ import annotations

from pathlib import Path

from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from edgellm.errors import CheckpointError
from edgellm_export.tokenizer.scheme import Draft, around, extra_tokens, named_tokens, text_of
from edgellm_export.tokenizer.settings import Settings
from edgellm_export.tokenizer.source import VOCAB_TXT, from_vocab_txt

SPECIAL = {
    "unk_token": "<unk>", "cls_token": "<cls>", "pad_token": "<pad>", "mask_token": "<mask>", "eos_token": "<eos>",
}  # fmt: skip


def esm(path: Path, settings: Settings) -> Draft:
    """Raises CheckpointError."""
    if not (path / VOCAB_TXT).is_file():
        raise CheckpointError(f"{path} lacks {VOCAB_TXT} of its EsmTokenizer; download it")
    ids = {token.strip(): number for token, number in from_vocab_txt(path / VOCAB_TXT).ids.items()}
    named = named_tokens(settings, SPECIAL)
    unknown, cls, eos = (named[name] for name in ("unk_token", "cls_token", "eos_token"))
    absent = [text_of(token) for token in (unknown, cls, eos) if text_of(token) not in ids]
    if absent:
        raise CheckpointError(f"{path / VOCAB_TXT} lacks the token {' and '.join(absent)}; download it again")
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=text_of(unknown)))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {text_of(token) for token in named.values() if token is not None}
    others = [token for token in sorted(ids, key=ids.__getitem__) if token not in special]
    found = [AddedToken(token, normalized=False) for token in others]
    surrounding = around([cls, "$A", eos], [cls, "$A", eos, "$B", eos])
    return Draft(tokenizer, named, extra_tokens(settings), surrounding, late=found)
