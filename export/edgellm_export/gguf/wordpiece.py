"""tokenizer.json of BERT's vocabulary as GGUF files hold it: words begin with a mark where BERT's other pieces do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from edgellm.errors import CheckpointError
from edgellm.text.tokenizer_errors import library_errors
from edgellm_export.tokenizer.vocabulary import SPACE, TokenKind, Vocabulary


def build_wordpiece(
    vocabulary: Vocabulary, special: Mapping[str, str | None], *, lowercase: bool, strip_accents: bool
) -> bytes:
    """The content of tokenizer.json. `special`: the texts of unk, cls and sep, by these names. Raises
    CheckpointError."""
    ids = vocabulary.ids()
    unk, cls, sep = (special.get(name) for name in ("unk", "cls", "sep"))
    if unk is None or cls is None or sep is None:
        raise CheckpointError(
            f"{vocabulary.origin} does not say which tokens begin and separate texts and stand for unknown words; "
            "convert it again with a current llama.cpp"
        )
    with library_errors(lambda reason: CheckpointError(f"{vocabulary.origin}: no tokenizer can be built ({reason})")):
        tokenizer = Tokenizer(models.WordPiece(ids, unk_token=unk))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase, strip_accents=strip_accents)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{cls}:0 $A:0 {sep}:0",
            pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
            special_tokens=[(cls, ids[cls]), (sep, ids[sep])],
        )
        found = [(vocabulary.tokens[i], vocabulary.kinds[i]) for i in vocabulary.special()]
        named = [(token, int(TokenKind.CONTROL)) for token in special.values() if token is not None]
        added = dict([*named, *found])
        tokenizer.add_tokens(
            [AddedToken(t, special=kind != TokenKind.USER_DEFINED, normalized=False) for t, kind in added.items()]
        )
        return str(tokenizer.to_str()).encode()


def bert_pieces(tokens: Sequence[str], kinds: Sequence[int]) -> list[str]:
    """Tokens as BERT writes them: "##" in front of what continues a word, nothing in front of what begins one."""
    return [
        token if kind == TokenKind.CONTROL else token[1:] if token.startswith(SPACE) else f"##{token}"
        for token, kind in zip(tokens, kinds, strict=True)
    ]
