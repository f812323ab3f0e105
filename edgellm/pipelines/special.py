"""What a package's tokenizer files say about special tokens and lengths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgellm.errors import corrupt
from edgellm.package.text_limit import text_limit
from edgellm.text.template_files import token_text
from edgellm.text.tokenizer import Tokenizer

# Tokenizer classes know these by default, and older checkpoints do not repeat them.
USUAL = {
    "mask": ("[MASK]", "<mask>"),
    "cls": ("[CLS]", "<s>"),
    "unk": ("[UNK]", "<unk>"),
    "pad": ("[PAD]", "<pad>"),
}


@dataclass(frozen=True)
class Special:
    """Ids of special tokens, None where there is no such token, and how a user writes the mask, `mask_text`.

    An input has at most `max_length` tokens, special ones included.
    """

    mask: int | None
    cls: int | None
    unk: int | None
    pad: int | None
    mask_text: str | None
    max_length: int

    @classmethod
    def create(cls, config: Mapping[str, Any], tokenizer: Tokenizer, context_length: int) -> Special:
        """`config` is tokenizer_config.json, which wins over the usual names. Raises PackageCorruptError."""
        texts = {name: _text(config, name, tokenizer) for name in USUAL}
        ids = {name: None if text is None else tokenizer.id_of(text) for name, text in texts.items()}
        return cls(**ids, mask_text=texts["mask"], max_length=text_limit(config, context_length, corrupt))


def _text(config: Mapping[str, Any], name: str, tokenizer: Tokenizer) -> str | None:
    given = token_text(config.get(f"{name}_token"))
    if given is not None:
        return given
    return next((text for text in USUAL[name] if tokenizer.id_of(text) is not None), None)
