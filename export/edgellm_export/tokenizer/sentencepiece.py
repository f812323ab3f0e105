"""SentencePiece models (tokenizer.model) of the BPE kind, as llama and gemma have them."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from edgellm.errors import CheckpointError, MissingDependencyError, UnsupportedModelError
from edgellm.text.tokenizer_errors import is_whole_table
from edgellm_export.tokenizer.vocabulary import SPACE, TokenKind, Vocabulary

UNIGRAM, BPE = 1, 2
REMEDY = "save the tokenizer once with transformers' AutoTokenizer, which writes tokenizer.json"


def read_model(path: Path) -> Any:
    """The ModelProto in `path`. Raises CheckpointError or MissingDependencyError."""
    try:
        protobuf = import_module("google.protobuf.message")
        formats = import_module("sentencepiece.sentencepiece_model_pb2")
    except ImportError as error:
        raise MissingDependencyError(
            f"reading {path} needs sentencepiece and protobuf; run `pip install 'edgellm[export]'`"
        ) from error
    model = formats.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except protobuf.DecodeError as error:
        raise CheckpointError(f"{path} is damaged or not a SentencePiece model; download it again") from error
    table = bytes(model.normalizer_spec.precompiled_charsmap)
    if table and not is_whole_table(table):
        raise CheckpointError(f"{path} has a precompiled_charsmap that is cut off; download it again")
    return model


def read_sentencepiece(path: Path) -> Vocabulary:
    """The vocabulary of a BPE model. Raises CheckpointError, UnsupportedModelError for other kinds of models, or
    MissingDependencyError."""
    model = read_model(path)
    if model.trainer_spec.model_type != BPE:
        kind = "Unigram" if model.trainer_spec.model_type == UNIGRAM else "word or character"
        raise UnsupportedModelError(f"{path} is a SentencePiece {kind} model, expected BPE; {REMEDY}")
    if model.normalizer_spec.precompiled_charsmap or model.normalizer_spec.remove_extra_whitespaces:
        raise UnsupportedModelError(f"{path} normalizes text in ways that are not reproduced; {REMEDY}")
    if not all(isinstance(piece.piece, str) for piece in model.pieces):
        raise CheckpointError(f"{path} has pieces that are not text; download it again")
    kinds = [int(piece.type) for piece in model.pieces]
    spec = model.trainer_spec
    size = len(kinds)
    return Vocabulary(
        origin=str(path),
        # Text is matched against these before spaces are replaced.
        tokens=[p.piece.replace(SPACE, " ") if p.type == TokenKind.USER_DEFINED else p.piece for p in model.pieces],
        kinds=kinds,
        scores=[piece.score for piece in model.pieces],
        bos=spec.bos_id if 0 <= spec.bos_id < size else None,
        eos=spec.eos_id if 0 <= spec.eos_id < size else None,
        unk=spec.unk_id if 0 <= spec.unk_id < size else None,
        add_space=model.normalizer_spec.add_dummy_prefix,
    )
