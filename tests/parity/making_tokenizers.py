"""Tokenizers as they are met: each kind of vocabulary, in each of the forms in which directories hold one, and edited.

`python making_tokenizers.py OUT` makes all of them, a directory each, with the transformers that runs it. A form that
this version cannot make has a file `failed` instead. It imports nothing of edgellm.
"""

from __future__ import annotations

import json
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import vocabularies
from making import Edit, corpus, edited, removed, without

TOKENIZER, CONFIG, MAP, ADDED = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
DECODER = "added_tokens_decoder"
BARE, SLOW, FAST = "bare", "slow", "fast"  # only the vocabulary; as the slow, or the fast class of 4.57 saves it


@dataclass(frozen=True)
class Kind:
    """`model_type` in config.json, the class that saves it, and its vocabulary: `files` by name."""

    model_type: str
    saver: str
    vocabulary: Callable[[Path], None]


@dataclass(frozen=True)
class Row:
    """A kind in one form, and edits. `same`: transformers 4.57 reads it as 5 does. `refused`: a pattern of the error
    that the export ends in. `made_by`: the version that saves it."""

    name: str
    kind: str
    form: str
    edits: tuple[Edit, ...] = ()
    same: bool = False
    refused: str | None = None
    made_by: str = "4"


# --- vocabularies


def sentences() -> list[str]:
    foreign = "Straße naïve café résumé Привет мир 你好世界 こんにちは 안녕하세요 مرحبا हैलो 😀 1984 don't"
    return [line.strip() for text in corpus() for line in text.split("\n") if line.strip()] + [foreign] * 20


@cache
def sentencepiece_model(**options: Any) -> bytes:
    import io

    import sentencepiece

    made = io.BytesIO()
    usual = {"vocab_size": 420, "minloglevel": 2, "hard_vocab_limit": False, "num_threads": 1}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences()), model_writer=made, **{**usual, **options}
    )
    return made.getvalue()


def spm(name: str, **options: Any) -> Callable[[Path], None]:
    return lambda path: (path / name).write_bytes(sentencepiece_model(**options)) and None


def byte_pairs(*special: str) -> Callable[[Path], None]:
    """vocab.json and merges.txt."""
    return lambda path: trained_byte_pairs(special).save(str(path)) and None


@cache
def trained_byte_pairs(special: tuple[str, ...]) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    settings = {"initial_alphabet": alphabet, "special_tokens": list(special), "show_progress": False}
    tokenizer.train_from_iterator(sentences(), trainers.BpeTrainer(vocab_size=500, **settings))
    return tokenizer.model


def word_pieces(*special: str, file: str = "vocab.txt") -> Callable[[Path], None]:
    """vocab.txt, of pieces in both cases."""

    def write(path: Path) -> None:
        pieces = trained_word_pieces()
        every = dict.fromkeys([*special, *pieces, *map(str.lower, pieces)])
        (path / file).write_text("\n".join(every) + "\n", encoding="utf-8")

    return write


@cache
def trained_word_pieces() -> list[str]:
    from tokenizers import normalizers

    return list(vocabularies.word_pieces(normalizers.BertNormalizer(lowercase=False), sentences(), 400, ["[UNK]"]))


def m2m100(path: Path) -> None:
    import sentencepiece

    content = sentencepiece_model(model_type="bpe")
    (path / "sentencepiece.bpe.model").write_bytes(content)
    processor = sentencepiece.SentencePieceProcessor(model_proto=content)
    pieces = [processor.id_to_piece(i) for i in range(3, processor.get_piece_size())]
    ids = {piece: i for i, piece in enumerate(["<s>", "<pad>", "</s>", "<unk>", *pieces])}
    (path / "vocab.json").write_text(json.dumps(ids), encoding="utf-8")
    (path / CONFIG).write_text('{"tokenizer_class": "M2M100Tokenizer"}')


def named(name: str, vocabulary: Callable[[Path], None]) -> Callable[[Path], None]:
    """With the class's name, which the model's type does not say."""

    def write(path: Path) -> None:
        vocabulary(path)
        (path / CONFIG).write_text(json.dumps({"tokenizer_class": name}))

    return write


BPE = {
    "model_type": "bpe",
    "byte_fallback": True,
    "normalization_rule_name": "identity",
    "remove_extra_whitespaces": False,
}
GEMMA_IDS = {"pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3, "bos_piece": "<bos>", "eos_piece": "<eos>"}
PAD_FIRST = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
BERT = word_pieces("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PROPHETNET = word_pieces("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[X_SEP]", file="prophetnet.tokenizer")
LLAMA = spm("tokenizer.model", **BPE, split_digits=True)
GEMMA = spm(
    "tokenizer.model", **BPE, **GEMMA_IDS, add_dummy_prefix=False, control_symbols="<mask>",
    user_defined_symbols="<2mass>,[@BOS@],<start_of_turn>",
)  # fmt: skip
FAIRSEQ = spm("sentencepiece.bpe.model")
ALBERT = spm(
    "spiece.model",
    pad_id=0,
    unk_id=1,
    bos_id=-1,
    eos_id=-1,
    control_symbols="[CLS],[SEP]",
    user_defined_symbols="[MASK]",
)
REMBERT = spm(
    "sentencepiece.model", pad_id=0, eos_id=1, unk_id=2, bos_id=3, control_symbols="[CLS],[SEP]",
    user_defined_symbols="[MASK]",
)  # fmt: skip
XLNET = spm("spiece.model", control_symbols="<cls>,<sep>,<pad>,<mask>,<eod>", user_defined_symbols="<eop>")
DEBERTA = spm(
    "spm.model", pad_id=0, bos_id=1, eos_id=2, unk_id=3, pad_piece="[PAD]", bos_piece="[CLS]", eos_piece="[SEP]",
    unk_piece="[UNK]",
)  # fmt: skip
NLLB = named("NllbTokenizer", spm("sentencepiece.bpe.model", model_type="bpe"))
KINDS = {
    "gpt2": Kind("gpt2", "GPT2Tokenizer", byte_pairs("<|endoftext|>")),
    "starcoder2": Kind("starcoder2", "GPT2Tokenizer", byte_pairs("<|endoftext|>")),
    "qwen2": Kind("qwen2", "Qwen2Tokenizer", byte_pairs()),
    "qwen3": Kind("qwen3", "Qwen2Tokenizer", byte_pairs()),
    "gpt_neox": Kind("gpt_neox", "GPTNeoXTokenizer", byte_pairs("<|endoftext|>", "<|padding|>")),
    "roberta": Kind("roberta", "RobertaTokenizer", byte_pairs("<s>", "<pad>", "</s>", "<unk>", "<mask>")),
    "bart": Kind("bart", "BartTokenizer", byte_pairs("<s>", "<pad>", "</s>", "<unk>", "<mask>")),
    "bert": Kind("bert", "BertTokenizer", BERT),
    "distilbert": Kind("distilbert", "DistilBertTokenizer", BERT),
    "electra": Kind("electra", "ElectraTokenizer", BERT),
    "ernie": Kind("ernie", "BertTokenizer", BERT),
    "mobilebert": Kind("mobilebert", "MobileBertTokenizer", BERT),
    "mpnet": Kind("mpnet", "MPNetTokenizer", word_pieces("<s>", "<pad>", "</s>", "[UNK]", "<mask>")),
    "prophetnet": Kind("prophetnet", "ProphetNetTokenizer", PROPHETNET),
    "llama": Kind("llama", "LlamaTokenizer", LLAMA),
    "mistral": Kind("mistral", "LlamaTokenizer", LLAMA),
    "phi3": Kind("phi3", "LlamaTokenizer", LLAMA),
    "gemma2": Kind("gemma2", "GemmaTokenizer", GEMMA),
    "gemma3": Kind("gemma3_text", "GemmaTokenizer", GEMMA),
    "t5": Kind("t5", "T5Tokenizer", spm("spiece.model", **PAD_FIRST)),
    "mt5": Kind("mt5", "T5Tokenizer", spm("spiece.model", **PAD_FIRST)),
    "pegasus": Kind("pegasus", "PegasusTokenizer", spm("spiece.model", **PAD_FIRST)),
    "mbart": Kind("mbart", "MBartTokenizer", FAIRSEQ),
    "mbart50": Kind("mbart", "MBart50Tokenizer", named("MBart50Tokenizer", FAIRSEQ)),
    "xlm-roberta": Kind("xlm-roberta", "XLMRobertaTokenizer", FAIRSEQ),
    "camembert": Kind("camembert", "CamembertTokenizer", FAIRSEQ),
    "albert": Kind("albert", "AlbertTokenizer", ALBERT),
    "rembert": Kind("rembert", "RemBertTokenizer", REMBERT),
    "xlnet": Kind("xlnet", "XLNetTokenizer", XLNET),
    "deberta": Kind("deberta-v2", "DebertaV2Tokenizer", DEBERTA),
    "nllb": Kind("m2m_100", "NllbTokenizer", NLLB),
    "m2m100": Kind("m2m_100", "M2M100Tokenizer", m2m100),
}


# --- edits


def token(content: str, **flags: bool) -> dict[str, Any]:
    usual = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"content": content, **usual, **flags}


def options(**values: Any) -> Edit:
    return edited(CONFIG, **values)


def written(file: str, content: Mapping[str, Any]) -> Edit:
    return lambda path: (path / file).write_text(json.dumps(content)) and None


def in_tokenizer_json(change: Callable[[dict[str, Any]], None]) -> Edit:
    def edit(path: Path) -> None:
        content = json.loads((path / TOKENIZER).read_text(encoding="utf-8"))
        change(content)
        (path / TOKENIZER).write_text(json.dumps(content), encoding="utf-8")

    return edit


def model_type(name: str) -> Edit:
    return edited("config.json", model_type=name)


def two_more_tokens(content: dict[str, Any]) -> None:
    """One that is special, and one that the file does not call so."""
    ids = [entry["id"] for entry in content["added_tokens"]]
    first = max([len(content["model"]["vocab"]) - 1, *ids]) + 1
    content["added_tokens"] += [{"id": first, **token("<new>", special=False)}, {"id": first + 1, **token("<more>")}]


def cut_and_padded(content: dict[str, Any]) -> None:
    content["truncation"] = {"direction": "Right", "max_length": 5, "strategy": "LongestFirst", "stride": 0}
    content["padding"] = {
        "strategy": {"Fixed": 12}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0,
        "pad_token": "[PAD]",
    }  # fmt: skip


def steps_around(content: dict[str, Any]) -> None:
    """What is put around a text, as a step of a sequence."""
    content["post_processor"] = {"type": "Sequence", "processors": [content["post_processor"]]}


def single_digits(content: dict[str, Any]) -> None:
    steps = [{"type": "Digits", "individual_digits": True}, content["pre_tokenizer"]]
    content["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": steps}


def normalizer(**values: Any) -> Edit:
    return in_tokenizer_json(lambda content: content["normalizer"].update(values))


# --- the table

NO_FAST = ("gpt_neox", "m2m100", "prophetnet")  # kinds for which 4.57 has only one class
# What 4.57 reads in another way than 5, which takes from tokenizer.json the vocabulary alone: Metaspace takes a space
# that a text begins with for its own, spaces at the end and several in a row stay, and bare files have no BOS.
NOT_SAME = ("prophetnet", "llama", "pegasus", "mbart", "mbart50", "albert", "xlnet", "deberta", "nllb")
NOT_SAME_BARE = ("gemma2", "gemma3", "mistral", "phi3", "roberta", "bart", "bert", "distilbert", "electra", "ernie",
                 "mobilebert", "camembert", "mpnet", "gpt_neox")  # fmt: skip


def forms() -> Iterator[Row]:
    for kind in KINDS:
        if kind == "rembert":
            continue
        if kind != "nllb":  # whose bare file neither version reads as the models were trained
            yield Row(f"{kind}-bare", kind, BARE, same=kind not in (*NOT_SAME, *NOT_SAME_BARE))
            yield Row(f"{kind}-5", kind, BARE, made_by="5")
        if kind not in ("gpt_neox",):
            yield Row(f"{kind}-slow", kind, SLOW, same=kind not in (*NOT_SAME, "gemma2", "gemma3", "mpnet"))
        if kind not in NO_FAST:
            yield Row(f"{kind}-fast", kind, FAST, same=kind not in (*NOT_SAME, "mpnet"))


def bert_rows() -> Iterator[Row]:
    """What only tokenizer_config.json says of the text's normalization."""
    for kind, form in (("bert", FAST), ("bert", SLOW), ("bert", BARE), ("distilbert", FAST), ("electra", FAST)):
        for name, edit in {
            "cased": options(do_lower_case=False),
            "accents": options(strip_accents=False),
            "chinese": options(tokenize_chinese_chars=False),
            "cased-without-accents": options(do_lower_case=False, strip_accents=True),
        }.items():
            yield Row(f"{kind}-{form}-{name}", kind, form, (edit,), same=form != BARE)
    yield Row(
        "bert-lower-over-cased", "bert", FAST, (normalizer(lowercase=False), options(do_lower_case=True)), same=True
    )
    yield Row("bert-as-it-is", "bert", FAST, (options(tokenizer_class="PreTrainedTokenizerFast"),))
    types = options(model_input_names=["input_ids", "token_type_ids", "attention_mask"])
    without_types = options(model_input_names=["input_ids", "attention_mask"])
    as_it_is = options(tokenizer_class="PreTrainedTokenizerFast")
    yield Row("bert-as-it-is-with-types", "bert", FAST, (as_it_is, types), same=True)
    yield Row("bert-without-types", "bert", FAST, (without_types,), same=True)
    yield Row("bert-other-cls", "bert", FAST, (options(cls_token="the", sep_token="."),))
    yield Row("bert-cut-and-padded", "bert", FAST, (in_tokenizer_json(cut_and_padded),), same=True)
    yield Row(
        "bert-other-rules", "bert", FAST, (options(tokenizer_class="BertweetTokenizer"),), refused="rules of its own"
    )
    yield Row("bert-types-in-a-sequence", "bert", FAST, (as_it_is, in_tokenizer_json(steps_around)))
    yield Row("bert-without-unk", "bert", FAST, (options(unk_token=None),), refused="lacks the token None")


def special_rows() -> Iterator[Row]:
    """Tokens that one of the files calls special, or that only one has."""
    fast = ("gpt2", "qwen2", "mistral", "bert", "roberta", "t5", "gemma2", "xlm-roberta")
    for kind, form in (("gpt2", BARE), ("gpt2", SLOW), *((kind, FAST) for kind in fast)):
        bare = form == BARE
        rows = {
            "eos": options(eos_token="<new>"),
            "extra": options(additional_special_tokens=["<new>", "<more>"]),
            "extra-of-5": options(extra_special_tokens=["<new>", "<more>"]),
            "image": options(image_token="<new>"),
            "image-object": options(image_token={"content": "<new>"}),
            "image-of-5": options(model_specific_special_tokens={"image_token": "<new>"}),
            "image-and-audio": options(image_token="<new>", model_specific_special_tokens={"audio_token": "<more>"}),
            "decoder": options(**{DECODER: {"3": token("<new>"), "1400": token("<more>", special=False)}}),
            "decoder-flags": options(
                **{DECODER: {"1400": token("<new>", lstrip=True, rstrip=True), "1401": token("on", single_word=True)}}
            ),
            "split": options(split_special_tokens=True),
            "clean": options(clean_up_tokenization_spaces=True),
            "bos-and-eos": options(add_bos_token=True, add_eos_token=True),
            "space": options(add_prefix_space=True),
            "no-space": options(add_prefix_space=False),
        }
        for name, edit in rows.items():
            yield Row(f"{kind}-{form}-{name}", kind, form, (edit,))
        special = {"eos_token": "<new>", "additional_special_tokens": ["<more>"]}
        listed = written(ADDED, {"<new>": 1300})
        undecided = [] if bare else [without(CONFIG, DECODER)]
        yield Row(f"{kind}-{form}-map", kind, form, (*undecided, written(MAP, special)))
        yield Row(f"{kind}-{form}-added", kind, form, (*undecided, written(MAP, special), listed))
        if form == FAST:
            more = in_tokenizer_json(two_more_tokens)
            yield Row(f"{kind}-json", kind, form, (more,))
            yield Row(f"{kind}-json-alone", kind, form, (more, removed(CONFIG, MAP)))
            named_only = options(eos_token="<new>")
            yield Row(f"{kind}-json-eos", kind, form, (more, without(CONFIG, DECODER), named_only))


def class_rows() -> Iterator[Row]:
    """Which class the files are for, and what it takes from them."""
    for kind in ("llama", "mistral"):
        for form in (FAST, SLOW):
            for name, edit in {
                "legacy": options(legacy=True),
                "not-legacy": options(legacy=False),
                "legacy-null": options(legacy=None),
                "spaceless": options(add_prefix_space=False),
                "ended": options(add_bos_token=False, add_eos_token=True),
            }.items():
                yield Row(f"{kind}-{form}-{name}", kind, form, (edit,))
    digits = in_tokenizer_json(single_digits)
    for name in ("gpt2", "llama", "starcoder2", "gpt_bigcode"):
        yield Row(f"digits-{name}", "gpt2", FAST, (digits, model_type(name)))
    as_llama = options(tokenizer_class="LlamaTokenizer")
    yield Row("bytes-called-llama", "gpt2", FAST, (as_llama, model_type("llama")))
    yield Row("qwen2-called-llama", "qwen2", FAST, (options(tokenizer_class="LlamaTokenizerFast"),))
    yield Row("unknown-class", "gpt2", FAST, (options(tokenizer_class="OtherTokenizer"), model_type("other")))
    in_config = edited("config.json", tokenizer_class="GPT2Tokenizer")
    yield Row(
        "class-in-config",
        "gpt2",
        FAST,
        (without(CONFIG, "tokenizer_class"), model_type("llama"), in_config),
        same=False,
    )
    yield Row(
        "bytes-as-they-are", "gpt2", BARE, (options(tokenizer_class="PreTrainedTokenizerFast"),), refused="merges.txt"
    )
    yield Row(
        "another-model", "bert", FAST, (options(tokenizer_class="T5Tokenizer"),), refused="holds a WordPiece model"
    )


def other_rows() -> Iterator[Row]:
    for language in ("fr_XX", "ro_RO"):
        for kind in ("mbart", "mbart50"):
            yield Row(f"{kind}-{language}", kind, FAST, (options(src_lang=language),))
            yield Row(f"{kind}-bare-{language}", kind, BARE, (options(src_lang=language),))
    yield Row("nllb-fra", "nllb", FAST, (options(src_lang="fra_Latn", tgt_lang="deu_Latn"),))
    yield Row("nllb-legacy", "nllb", SLOW, (options(legacy_behaviour=True),))
    yield Row("nllb-nowhere", "nllb", FAST, (options(src_lang="xxx_Latn"),), refused="src_lang of its tokenizer is")
    yield Row("m2m100-fr", "m2m100", BARE, (options(src_lang="fr"),))
    yield Row("t5-without-extra", "t5", BARE, (options(extra_ids=0),), same=True)
    yield Row("t5-seven", "t5", FAST, (options(extra_ids=7),))
    yield Row("pegasus-offset", "pegasus", BARE, (options(offset=10),))
    yield Row("albert-accents", "albert", BARE, (options(keep_accents=True, do_lower_case=False),))
    yield Row("rembert-cased", "rembert", FAST, (options(do_lower_case=False),))
    yield Row("rembert-accents", "rembert", FAST, (options(do_lower_case=False, keep_accents=False),))
    yield Row("rembert-5", "rembert", BARE, made_by="5")
    yield Row("rembert-bare", "rembert", BARE, refused="would be built of tokenizer.json")
    yield Row("xlnet-lower", "xlnet", FAST, (options(do_lower_case=True),))
    yield Row("deberta-punctuation", "deberta", BARE, (options(do_lower_case=True, split_by_punct=True),))
    yield Row("camembert-extra", "camembert", BARE, (options(additional_special_tokens=["<new>"]),))
    yield Row("xlm-roberta-no-prefix", "xlm-roberta", BARE, (options(add_prefix_space=False),))
    yield Row("roberta-mask", "roberta", BARE, (written(MAP, {"mask_token": token("<mask>", lstrip=True)}),))
    yield Row("roberta-trim", "roberta", FAST, (options(trim_offsets=False),), same=True)
    for kind in ("t5", "xlm-roberta", "mbart", "pegasus", "albert"):
        yield Row(f"{kind}-cleaned", kind, FAST, (options(clean_up_tokenization_spaces=True),))


ROWS = [*forms(), *bert_rows(), *special_rows(), *class_rows(), *other_rows()]


# --- making


def make(hf: Any, row: Row, path: Path) -> None:
    kind = KINDS[row.kind]
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps({"model_type": kind.model_type, "vocab_size": 2000}))
    kind.vocabulary(path)
    if row.made_by == "5" or row.form != BARE:
        files = {file.name for file in path.iterdir()} - {"config.json"}
        saver = hf.AutoTokenizer if row.made_by == "5" else getattr(hf, kind.saver + "Fast" * (row.form == FAST))
        tokenizer = saver.from_pretrained(path)
        for name in files:
            (path / name).unlink()
        tokenizer.save_pretrained(path)
        if (path / TOKENIZER).is_file():  # alone, as published
            for name in files - {CONFIG}:
                (path / name).unlink(missing_ok=True)
    for edit in row.edits:
        edit(path)


def make_all(out: Path) -> None:
    import transformers

    version = transformers.__version__.split(".")[0]
    for row in ROWS:
        if row.made_by != version:
            continue
        try:
            make(transformers, row, out / row.name)
        except Exception:
            shutil.rmtree(out / row.name, ignore_errors=True)
            (out / row.name).mkdir(parents=True)
            (out / row.name / "failed").write_text(traceback.format_exc())


if __name__ == "__main__":
    make_all(Path(sys.argv[1]))
