"""tokenizer.json from a bare vocabulary, for checkpoints that come without one: GGUF and SentencePiece files."""

from __future__ import annotations

from edgellm_export.tokenizer.build import build_tokenizer
from edgellm_export.tokenizer.vocabulary import TokenKind, Vocabulary

__all__ = ["TokenKind", "Vocabulary", "build_tokenizer"]
