"""The files that tokenizers are made of, tokenizers themselves, and chat templates."""

from __future__ import annotations

import io

import sentencepiece
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from fuzz.seeds.writing import write_input, write_json

SPACE = "\u2581"


def write_text_files() -> None:
    added = {"5": {"content": "<x>", "special": True}}
    old = {
        "vocab.json": {"a": 0, "b": 1, "ab": 2, "Ġ": 3, "<e>": 4},
        "merges.txt": "#version: 0.2\na b\n",
        "added_tokens.json": {"<x>": 5},
    }
    for name in ("GPT2Tokenizer", "Qwen2Tokenizer"):
        config = {"tokenizer_class": name, "added_tokens_decoder": added, "bos_token": "<e>", "chat_template": "x"}
        write_json(
            "text_files", f"seed-{name}", old | {"tokenizer_config.json": config, "config.json": {"model_type": "bart"}}
        )
    roberta = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "a": 4, "b": 5, "ab": 6, "<mask>": 7}
    files = {"vocab.json": roberta, "merges.txt": old["merges.txt"]}
    configs = {"tokenizer_config.json": {"add_prefix_space": False}, "config.json": {"model_type": "roberta"}}
    write_json("text_files", "seed-roberta", files | configs)
    vocab = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nthe\n##s\ncat\n"
    bert = {"tokenizer_config.json": {"do_lower_case": True}, "config.json": {"model_type": "bert"}}
    write_json("text_files", "seed-bert", {"vocab.txt": vocab, **bert})
    template = {"chat_template": [{"name": "default", "template": "{{ messages[0].content }}"}]}
    others = {"special_tokens_map.json": {"bos_token": "<s>"}, "generation_config.json": {"top_k": 3}}
    templates = {"tokenizer_config.json": template, "chat_template.json": template}
    write_json("text_files", "seed-template", templates | others)


def write_sentencepiece() -> None:
    lines = ["the quick brown fox jumps over the lazy dog", "pack my box with five dozen liquor jugs"] * 4
    plain = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}
    for kind, size, options in (("bpe", 60, plain), ("unigram", 45, {})):
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            vocab_size=size,
            model_type=kind,
            minloglevel=2,
            hard_vocab_limit=False,
            **options,
        )
        data = model.getvalue()
        if len(data) > 20_000:  # the table of the usual normalization; the fuzzer does better without
            data = _without_table(data)
        write_input("sentencepiece", f"seed-{kind}", data)


def _without_table(data: bytes) -> bytes:
    from sentencepiece import sentencepiece_model_pb2

    model = sentencepiece_model_pb2.ModelProto.FromString(data)
    model.normalizer_spec.precompiled_charsmap = model.normalizer_spec.precompiled_charsmap[:64]
    return bytes(model.SerializeToString())


def write_tokenizers() -> None:
    bpe = Tokenizer(models.BPE(vocab={"a": 0, "b": 1, "ab": 2, "Ġ": 3}, merges=[("a", "b")], unk_token="a"))
    bpe.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace("x", "a")])
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.add_special_tokens([AddedToken("<s>", special=True)])
    bpe.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 4)])
    spm = Tokenizer(
        models.BPE(
            vocab={"<unk>": 0, "<0xE2>": 1, SPACE: 2, "a": 3},
            merges=[],
            unk_token="<unk>",
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    spm.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    spm.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    unigram = Tokenizer(models.Unigram([("<unk>", 0.0), ("a", -1.0), (SPACE, -2.0)], unk_id=0, byte_fallback=False))
    unigram.pre_tokenizer = pre_tokenizers.Metaspace()
    unigram.decoder = decoders.Metaspace()
    words = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1, "##b": 2, "[CLS]": 3, "[SEP]": 4}, unk_token="[UNK]"))
    words.normalizer = normalizers.BertNormalizer()
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words.post_processor = processors.BertProcessing(("[SEP]", 4), ("[CLS]", 3))
    words.decoder = decoders.WordPiece()
    split = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    split.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(" ", "isolated"), pre_tokenizers.Digits()])
    for name, made in {"bpe": bpe, "spm": spm, "unigram": unigram, "wordpiece": words, "wordlevel": split}.items():
        write_input("tokenizer", f"seed-{name}", made.to_str().encode())


def write_templates() -> None:
    chatml = (
        "{%- if tools %}{{- tools | tojson }}{%- endif %}{% for message in messages %}"
        "{{- '<|im_start|>' + message.role + '\\n' }}{%- if message.content is string %}{{ message.content | trim }}"
        "{%- else %}{% for part in message['content'] %}{{ part.text }}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    macros = (
        "{% macro show(x, depth=0) %}{% for k, v in x.items() %}{{ '  ' * depth ~ k }}: {{ v }}{% endfor %}"
        "{% endmacro %}"
        "{% set ns = namespace(n=0, last=messages[-1]) %}{% for m in messages[::-1] if m.role != 'system' %}"
        "{% set ns.n = ns.n + loop.index0 %}{{ show(m) }}{% generation %}{{ m.content }}{% endgeneration %}"
        "{% if loop.last %}{% break %}{% endif %}{% endfor %}{{ ns.n ** 2 }}{{ strftime_now('%Y') | length }}"
        "{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | list | tojson(indent=2) }}"
        "{{ raise_exception('no') if ns.n > 99 else '%s-%d' % ('a', 3) }}{{ 'a,b'.split(',') | join('-') | upper }}"
    )
    write_input("chat_template", "seed-chatml", chatml.encode())
    write_input("chat_template", "seed-macros", macros.encode())
    config = {"bos_token": {"content": "<s>"}, "eos_token": "</s>", "model_max_length": 10**30}
    named = [{"name": "default", "template": chatml}, {"name": "tool_use", "template": "{{ tools }}"}]
    write_json("tokenizer_config", "seed", config | {"chat_template": chatml})
    write_json("tokenizer_config", "seed-named", config | {"chat_template": named})
