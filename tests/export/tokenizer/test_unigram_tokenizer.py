"""tokenizer.json built from Marian's and T5's SentencePiece files, against transformers' tokenizers that read them."""

from __future__ import annotations

import io
import json
import pydoc_data.topics
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sentencepiece as spm
import torch
import transformers as hf
from sentencepiece import sentencepiece_model_pb2

import edgellm
import edgellm_export
from edgellm.errors import CheckpointError, UnsupportedModelError
from edgellm.text.prompts import encode_source
from edgellm.text.tokenizer import Tokenizer
from edgellm_export.tokenizer.files import read_text_files

pytestmark = pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses")

ENGLISH = [line for name in ("types", "class", "exceptions") for line in pydoc_data.topics.topics[name].split("\n")]
# Another language for the target: the same letters in another order, and some of its own.
OTHER = [line[::-1].replace("e", "é").replace("s", "ß") for line in ENGLISH]

TEXTS = [
    "The quick brown fox jumps over the lazy dog.",
    "  spaces   at both   ends  ",
    "Tabs\tand\nlines\r\n, and a non\u00a0breaking space",
    "Numbers 12345, (brackets) [and] {braces}: 3.14 % $ # @!",
    "ÀÉÎÕÜ naïve café ﬁligree ½ ℃ Ⅷ full\uff0dwidth \uff21\uff22",
    "unknown: 日本語 and русский 🙂",
    "a",
    " ",
    ">>fra<< Where is the class?",
    "exceptions </s> and <unk> inside <pad> of it",
    "ß alone, é",
    "x" * 200,
    *[line for line in ENGLISH if line.strip()][:150],
]
# What both versions of transformers cut alike: 5 keeps blanks that 4.57 drops, and has no table for mBART.
ALIKE = [" ".join(line.split()) for line in ENGLISH if line.strip() and line.isascii()][:150]


def train(lines: list[str], size: int, **options: Any) -> bytes:
    model = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(line for line in lines if line.strip()), model_writer=model, vocab_size=size,
        model_type="unigram", character_coverage=1.0, minloglevel=2, hard_vocab_limit=False, **options,
    )  # fmt: skip
    return model.getvalue()


def pieces(model: bytes) -> list[str]:
    processor = spm.SentencePieceProcessor(model_proto=model)
    return [processor.id_to_piece(i) for i in range(processor.get_piece_size())]


@pytest.fixture(scope="module")
def marian(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As opus-mt has it: one vocabulary for both sides, some pieces of the source not in it."""
    path = tmp_path_factory.mktemp("marian")
    source, target = train(ENGLISH, 600), train(OTHER, 500)
    (path / "source.spm").write_bytes(source)
    (path / "target.spm").write_bytes(target)
    known = [p for i, p in enumerate(pieces(source)) if i % 29 != 5] + pieces(target)
    tokens = dict.fromkeys(["</s>", "<unk>", *(p for p in known if p not in ("<s>", "</s>", "<unk>")), ">>fra<<"])
    ids = {token: i for i, token in enumerate([*tokens, "<pad>"])}
    (path / "vocab.json").write_text(json.dumps(ids))
    (path / "config.json").write_text(json.dumps({"model_type": "marian"}))
    (path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "MarianTokenizer"}))
    return path


def built(path: Path) -> Tokenizer:
    (path / "built.json").write_bytes(read_text_files(path)["tokenizer.json"])
    return Tokenizer.from_file(path / "built.json")


def test_marian_sources(marian: Path) -> None:
    reference, tokenizer = hf.MarianTokenizer.from_pretrained(marian), built(marian)
    size = len(json.loads((marian / "vocab.json").read_text()))
    facts = SimpleNamespace(source_length=None)
    manifest: Any = SimpleNamespace(vocab_size=size, model=facts, tokens=SimpleNamespace(bos=None))
    beyond = 0
    for text in TEXTS:
        assert encode_source(text, tokenizer, manifest).tolist() == reference(text).input_ids, text
        beyond += int((tokenizer.encode(text) >= size).sum())
    assert beyond > 10  # pieces that vocab.json lacks did occur


def test_marian_targets(marian: Path) -> None:
    reference, tokenizer = hf.MarianTokenizer.from_pretrained(marian), built(marian)
    for text in [line for line in OTHER if line.strip()][:100]:
        ids = reference(text_target=text).input_ids
        expected = reference.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        assert tokenizer.decode(ids) == expected


@pytest.mark.parametrize("absent", [("source.spm",), ("target.spm",), ("source.spm", "target.spm"), ("vocab.json",)])
def test_missing_sentencepiece_files(marian: Path, tmp_path: Path, absent: tuple[str, ...]) -> None:
    for name in {"source.spm", "target.spm", "vocab.json", "config.json", "tokenizer_config.json"} - {*absent}:
        (tmp_path / name).write_bytes((marian / name).read_bytes())
    with pytest.raises(CheckpointError, match=f"lacks {', '.join(absent)}: a Marian checkpoint"):
        read_text_files(tmp_path)


def test_damaged_sentencepiece_files(marian: Path, tmp_path: Path) -> None:
    for name in ("source.spm", "target.spm", "vocab.json", "config.json"):
        (tmp_path / name).write_bytes((marian / name).read_bytes())
    (tmp_path / "target.spm").write_bytes(b"not a model")
    with pytest.raises(CheckpointError, match="damaged or not a SentencePiece model"):
        read_text_files(tmp_path)
    (tmp_path / "target.spm").write_bytes((marian / "target.spm").read_bytes())
    (tmp_path / "vocab.json").write_text('{"</s>": 0, "<unk>": 2}')
    with pytest.raises(CheckpointError, match="does not number its tokens"):
        read_text_files(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"separate_vocabs": true}')
    with pytest.raises(UnsupportedModelError, match="one vocabulary for sources and one for targets"):
        read_text_files(tmp_path)


@pytest.mark.parametrize("extra", [{}, {"extra_ids": 0}], ids=str)
def test_t5(extra: dict[str, int], tmp_path: Path) -> None:
    model = train(ENGLISH, 600, pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    (tmp_path / "spiece.model").write_bytes(model)
    (tmp_path / "config.json").write_text('{"model_type": "mt5"}')
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(extra))
    tokenizer = built(tmp_path)
    options = {"additional_special_tokens": []} if extra else {}
    reference = hf.T5Tokenizer(str(tmp_path / "spiece.model"), legacy=False, **extra, **options)
    for text in [*TEXTS[:8], *TEXTS[11:]]:
        assert tokenizer.encode(text).tolist() == reference(text).input_ids, text
    if not extra:
        assert reference.convert_tokens_to_ids("<extra_id_0>") in tokenizer.encode("a <extra_id_0> b")
    ids = reference("The classes of exceptions.").input_ids
    assert tokenizer.decode(ids) == "The classes of exceptions."


def test_a_table_that_claims_gigabytes(tmp_path: Path) -> None:
    """The tokenizers library would end the process."""
    model = sentencepiece_model_pb2.ModelProto.FromString(train(ENGLISH, 300))
    model.normalizer_spec.precompiled_charsmap = (0xFFFFFFF0).to_bytes(4, "little") + bytes(64)
    (tmp_path / "spiece.model").write_bytes(model.SerializeToString())
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    with pytest.raises(CheckpointError, match=r"spiece.model has a precompiled_charsmap that is cut off"):
        read_text_files(tmp_path)


def test_pegasus(tmp_path: Path) -> None:
    model = train(ENGLISH, 600, pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    (tmp_path / "spiece.model").write_bytes(model)
    (tmp_path / "config.json").write_text('{"model_type": "pegasus"}')
    tokenizer, reference = built(tmp_path), hf.PegasusTokenizer(str(tmp_path / "spiece.model"))
    for text in ALIKE:
        assert tokenizer.encode(text).tolist() == reference(text).input_ids, text
    for token in ("<pad>", "</s>", "<mask_1>", "<mask_2>", "<unk_2>", "<unk_102>", "<unk>"):
        assert tokenizer.id_of(token) == reference.convert_tokens_to_ids(token), token


@pytest.mark.parametrize("kind", ["MBartTokenizer", "MBart50Tokenizer"])
@pytest.mark.parametrize("language", ["en_XX", "ro_RO"])
def test_mbart(kind: str, language: str, tmp_path: Path) -> None:
    (tmp_path / "sentencepiece.bpe.model").write_bytes(train(ENGLISH, 600, unk_id=0, bos_id=1, eos_id=2))
    (tmp_path / "config.json").write_text('{"model_type": "mbart"}')
    config = {"tokenizer_class": kind, "src_lang": language}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    reference = getattr(hf, kind)(str(tmp_path / "sentencepiece.bpe.model"), src_lang=language, tgt_lang="fr_XX")
    tokenizer = built(tmp_path)
    for text in ALIKE:
        assert tokenizer.encode(text).tolist() == reference(text).input_ids, text
    codes = [*reference.lang_code_to_id, "<mask>", "<s>", "<pad>", "</s>", "<unk>"]
    assert [tokenizer.id_of(code) for code in codes] == [reference.convert_tokens_to_ids(code) for code in codes]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**config, "src_lang": "ro_R"}))
    with pytest.raises(CheckpointError, match=r"src_lang of its tokenizer is 'ro_R'; did you mean 'ro_RO'"):
        read_text_files(tmp_path)


def test_a_model_whose_family_is_not_known(tmp_path: Path) -> None:
    (tmp_path / "spiece.model").write_bytes(train(ENGLISH, 300))
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UnsupportedModelError, match=r"has spiece.model but .* a BertTokenizer would be built of vocab"):
        read_text_files(tmp_path)


def test_a_marian_checkpoint_from_text_to_text(marian: Path, tmp_path: Path) -> None:
    """Exported with its files as they are: the text that transformers gives."""
    size = len(json.loads((marian / "vocab.json").read_text()))
    torch.manual_seed(0)
    sizes = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "max_position_embeddings": 256}
    ids = {"pad_token_id": size - 1, "decoder_start_token_id": size - 1, "eos_token_id": 0, "forced_eos_token_id": 0}
    model = hf.MarianMTModel(hf.MarianConfig(vocab_size=size, **sizes, **heads, **ids)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad and parameter.ndim > 1:
                parameter.copy_(torch.randn_like(parameter) * 0.3)
    model.save_pretrained(tmp_path / "checkpoint")
    for name in ("source.spm", "target.spm", "vocab.json", "tokenizer_config.json"):
        shutil.copy(marian / name, tmp_path / "checkpoint")
    tokenizer = hf.MarianTokenizer.from_pretrained(tmp_path / "checkpoint")
    package = edgellm_export.export(tmp_path / "checkpoint", tmp_path / "out", precision="fp32").path
    found = edgellm.load(package, threads=1)
    assert isinstance(found, edgellm.EncoderDecoderModel)
    texts = [">>fra<< Where is the class of exceptions?", "Short."]
    options = {"num_beams": 3, "max_length": 24, "bad_words_ids": [[size - 1]], "renormalize_logits": True}
    expected = model.generate(**tokenizer(texts, return_tensors="pt", padding=True), **options)
    for text, generation, row in zip(texts, found.generate(texts, **options), expected, strict=True):
        wanted = tokenizer.decode(row, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        assert generation.text == wanted, text
        assert len(wanted) > 10
