"""What transformers makes of a checkpoint: a program by itself, which another process asks through its standard input.

Each line of JSON is a question, see `Question` in questions.py; it is answered by a line of JSON and by arrays in the
directory that it names. It imports nothing of edgellm, so that any interpreter which has transformers will do.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

CLASSES = {
    "text-generation": "AutoModelForCausalLM",
    "text2text-generation": "AutoModelForSeq2SeqLM",
    "fill-mask": "AutoModelForMaskedLM",
    "text-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "question-answering": "AutoModelForQuestionAnswering",
    "feature-extraction": "AutoModel",
}
GENERATIVE = ("text-generation", "text2text-generation")
VOCABULARIES = (
    "tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model",
    "spm.model", "source.spm", "prophetnet.tokenizer", "sentencepiece.model",
)  # fmt: skip
OUTPUTS = ("logits", "start_logits", "end_logits", "last_hidden_state")
MOST_SPECIAL = 48  # added tokens that are tried within texts
PROMPT, NEW_TOKENS = 8, 12  # of the generated texts


def main() -> None:
    with contextlib.suppress(ValueError):  # which it is not in where Python puts no directory of programs there
        sys.path.remove(str(Path(__file__).parent))  # its neighbours are edgellm's, whatever their names
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print
    for line in sys.stdin:
        print(json.dumps(guarded(answer, json.loads(line))), file=answers, flush=True)


def guarded(function: Callable[..., Any], *arguments: Any) -> Any:
    """What the function returns, or {"error": why it failed}."""
    try:
        return function(*arguments)
    except Exception as error:  # anything: it is reported
        return {"error": f"{type(error).__name__}: {error}"}


def answer(question: Mapping[str, Any]) -> dict[str, Any]:
    import transformers

    found: dict[str, Any] = {"transformers": transformers.__version__}
    tokenizer = guarded(open_tokenizer, question)
    if isinstance(tokenizer, dict):
        found["tokenizer"], tokenizer = tokenizer, None
    else:
        found["tokenizer"] = about_text(tokenizer, question)
    found["model"] = guarded(about_model, tokenizer, question)
    return found


def origin(question: Mapping[str, Any]) -> dict[str, Any]:
    """What `from_pretrained` takes to find the checkpoint. Without `trust_remote_code` it asks, on our input."""
    revision = {"revision": question["revision"]} if question["revision"] else {}
    return {"pretrained_model_name_or_path": question["checkpoint"], "trust_remote_code": False, **revision}


# --- tokens and text


def open_tokenizer(question: Mapping[str, Any]) -> Any:
    import transformers

    opener: Any = transformers.AutoTokenizer
    for adapter, _ in question["adapters"]:
        if has_tokenizer(adapter):
            return opener.from_pretrained(adapter, trust_remote_code=False)
    if question["embed"]:
        return sentence_encoder(question).tokenizer
    tokenizer = opener.from_pretrained(**origin(question))
    if not any(is_there(question, name) for name in VOCABULARIES):
        raise FileNotFoundError("there is no vocabulary")  # transformers 5 makes an empty tokenizer
    return tokenizer


def is_there(question: Mapping[str, Any], name: str) -> bool:
    """Whether a checkpoint that has been opened before has a file."""
    from huggingface_hub import try_to_load_from_cache

    if Path(question["checkpoint"]).exists():
        return (Path(question["checkpoint"]) / name).is_file()
    return isinstance(try_to_load_from_cache(question["checkpoint"], name, revision=question["revision"]), str)


def has_tokenizer(adapter: str) -> bool:
    name = "tokenizer_config.json"
    if Path(adapter).exists():
        return (Path(adapter) / name).is_file()
    from huggingface_hub import file_exists

    return bool(file_exists(adapter, name))


def about_text(tokenizer: Any, question: Mapping[str, Any]) -> dict[str, Any]:
    texts = [*question["texts"], *texts_with(special_tokens(tokenizer))]
    ids = [guarded(lambda text=text: tokenizer(text)["input_ids"]) for text in texts]
    read = [each for each in ids if isinstance(each, list)]
    sequences = [*read, *random_sequences(len(tokenizer))]
    found = {
        "texts": texts,
        "ids": ids,
        "sequences": sequences,
        "decoded": [tokenizer.decode(each, skip_special_tokens=True) for each in sequences],
        "kept": [tokenizer.decode(each, skip_special_tokens=False) for each in sequences],
        "chats": [guarded(render, tokenizer, chat) for chat in question["chats"]],
    }
    if question["task"] not in GENERATIVE:
        pairs = [tokenizer(*pair) for pair in question["pairs"]]  # models take types that they are not given for 0
        found["pairs"] = [[p["input_ids"], p.get("token_type_ids") or [0] * len(p["input_ids"])] for p in pairs]
    return found


def special_tokens(tokenizer: Any) -> list[str]:
    """The tokens that are found in a text before it is cut, at most `MOST_SPECIAL` of them."""
    added = [str(token) for _, token in sorted(tokenizer.added_tokens_decoder.items())]
    every = list(dict.fromkeys([*map(str, tokenizer.all_special_tokens), *added]))
    return [*every[: MOST_SPECIAL // 2], *every[MOST_SPECIAL // 2 :][-MOST_SPECIAL // 2 :]]


def texts_with(tokens: Sequence[str]) -> Iterator[str]:
    for token in tokens:
        yield from (token, f"a{token}b", f"One {token} two", f" {token} \n{token}")


def random_sequences(size: int) -> list[list[int]]:
    """Sequences of any tokens, for decoding."""
    import numpy as np

    sequences: list[list[int]] = np.random.default_rng(0).integers(0, size, (64, 8)).tolist()
    return sequences


def render(tokenizer: Any, chat: Mapping[str, Any]) -> str:
    return str(tokenizer.apply_chat_template(**chat, tokenize=False))


# --- numbers


def about_model(tokenizer: Any, question: Mapping[str, Any]) -> dict[str, Any]:
    if question["embed"]:
        return about_embedding(question)
    model, loading = open_model(question)
    found: dict[str, Any] = {"class": type(model).__name__}
    if question["adapters"]:
        model = with_adapters(model, tokenizer, question["adapters"])
    found["missing"] = sorted(set(loading["missing_keys"]) - brought(model))
    config = model.config.get_text_config()
    found["labels"] = [str(label) for _, label in sorted((model.config.id2label or {}).items())]
    if question["task"] not in GENERATIVE:
        inputs = encoder_inputs(tokenizer, question)
        found["tokenized"] = tokenizer is not None
        found["inputs"] = [each["input_ids"][0].tolist() for each in inputs]
        found["outputs"] = encoder_outputs(model, inputs, question)
        return found
    rows = token_rows(tokenizer, question, config.vocab_size)
    found["rows"] = rows
    found["generation"] = json.loads(model.generation_config.to_json_string(use_diff=True))
    if question["task"] == "text-generation":
        decoder_logits(model, rows, question)
        prompts = [row[:PROMPT] for row in rows]
    else:
        prompts = seq2seq_logits(model, rows, question)
    found["prompts"] = prompts
    found["generated"] = [guarded(generated, model, prompt, question) for prompt in prompts]
    return found


def open_model(question: Mapping[str, Any]) -> tuple[Any, Any]:
    import torch
    import transformers

    kind, attention = getattr(transformers, CLASSES[question["task"]]), "eager"
    if question["task"] == "text-generation":
        config = transformers.AutoConfig.from_pretrained(**origin(question))
        if type(config) not in kind._model_mapping:  # one that reads images, too
            kind = transformers.AutoModelForImageTextToText
        if config.model_type == "falcon" and config.alibi:
            attention = "sdpa"  # the usual one; the other adds the positions twice
    settings = {"output_loading_info": True, "attn_implementation": attention, "dtype": torch.float32}
    if question["adapters"] and question["labels"]:
        settings["num_labels"] = question["labels"]
    model, loading = kind.from_pretrained(**origin(question), **settings)
    return model.eval(), loading


def with_adapters(model: Any, tokenizer: Any, adapters: Sequence[tuple[str, float]]) -> Any:
    """The model that runs them, as it was trained; merging changes both of a tied pair where one was. Not PEFT's
    own around it: that for answers drops token types."""
    import peft

    if tokenizer is not None and len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(len(tokenizer))
    names, weights = [f"adapter-{i}" for i in range(len(adapters))], [weight for _, weight in adapters]
    wrapped = peft.PeftModel.from_pretrained(model, adapters[0][0], adapter_name=names[0])
    for name, (adapter, _) in zip(names[1:], adapters[1:], strict=True):
        wrapped.load_adapter(adapter, adapter_name=name)
    if any(weight != 1 for weight in weights):
        wrapped.add_weighted_adapter(names, weights, "sum", combination_type="cat")
        wrapped.set_adapter("sum")
    elif len(names) > 1:
        wrapped.base_model.set_adapter(names)
    return wrapped.get_base_model().eval()


def brought(model: Any) -> set[str]:
    """The names of tensors that adapters bring whole."""
    wrapped = {
        name: module for name, module in model.named_modules() if type(module).__name__ == "ModulesToSaveWrapper"
    }
    return {
        f"{name}.{tensor}"
        for name, module in wrapped.items()
        for tensor, _ in module.original_module.named_parameters()
    }


def token_rows(tokenizer: Any, question: Mapping[str, Any], vocab_size: int) -> list[list[int]]:
    """The tokens of the long texts, each cut to `length`, the shortest first: some tables of positions grow with what
    they have seen."""
    import numpy as np

    length = question["length"]
    if tokenizer is None:
        rows = np.random.default_rng(1).integers(0, vocab_size, (len(question["long_texts"]), length)).tolist()
    else:
        rows = [tokenizer(text)["input_ids"][:length] for text in question["long_texts"]]
    rows = [[token for token in row if token < vocab_size] for row in rows]
    return [row[: max(1, len(row) * (i + 1) // len(rows))] for i, row in enumerate(rows)]


def decoder_logits(model: Any, rows: Sequence[Sequence[int]], question: Mapping[str, Any]) -> None:
    import torch

    for i, row in enumerate(rows):
        with torch.no_grad():
            save(question, f"logits-{i}", model(input_ids=torch.tensor([row])).logits[0])


def seq2seq_logits(model: Any, rows: list[list[int]], question: Mapping[str, Any]) -> list[list[int]]:
    """Each row is a source, the next one its target. Returns the sources."""
    import torch

    start = first_of_target(model)
    for i, row in enumerate(rows):
        target = [start, *rows[(i + 1) % len(rows)]][: question["length"]]
        with torch.no_grad():
            logits = target_logits(model, row, target, question)
        save(question, f"target-{i}", torch.tensor(target))
        save(question, f"logits-{i}", logits)
    return rows


def target_logits(model: Any, source: list[int], target: list[int], question: Mapping[str, Any]) -> Any:
    """[length, vocab]. ProphetNet's are those of a token at a time, as `generate` reads them: of several at once, its
    predicting stream's numbers of distances get to other tokens and other heads than those that they were made of."""
    import torch

    given = torch.tensor([source])
    if model.config.model_type != "prophetnet":
        more = global_mask(question, given)
        return model(input_ids=given, decoder_input_ids=torch.tensor([target]), **more).logits[0]
    encoded, mask, cache, logits = model.get_encoder()(given), torch.ones_like(given), None, []
    key = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
    for token in target:
        state = {"encoder_outputs": encoded, "attention_mask": mask, "use_cache": True, key: cache}
        out = model(decoder_input_ids=torch.tensor([[token]]), **state)
        cache = getattr(out, key)
        logits.append(out.logits[0, 0])
    return torch.stack(logits)


def first_of_target(model: Any) -> int:
    """Any will do for numbers where neither config says it."""
    said = (getattr(each, "decoder_start_token_id", None) for each in (model.generation_config, model.config))
    return next((token for token in said if isinstance(token, int)), 0)


def global_mask(question: Mapping[str, Any], ids: Any) -> dict[str, Any]:
    """What asks for global attention: [1, length], ones for the tokens that have it."""
    import torch

    if question["global_attention"] is None:
        return {}
    mask = torch.zeros_like(ids)
    mask[:, 0] = 1
    return {"global_attention_mask": mask}


def generated(model: Any, prompt: list[int], question: Mapping[str, Any]) -> list[int]:
    """What is generated behind the prompt by the checkpoint's defaults, nothing drawn by chance."""
    import torch

    ids = torch.tensor([prompt])
    mask = torch.ones_like(ids)
    out = model.generate(
        input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=NEW_TOKENS, **global_mask(question, ids)
    )
    skipped = 1 if model.config.is_encoder_decoder else len(prompt)
    tokens: list[int] = out[0, skipped:].tolist()
    return tokens


def encoder_inputs(tokenizer: Any, question: Mapping[str, Any]) -> list[Any]:
    import torch

    length = question["length"]
    if tokenizer is None:
        return [{"input_ids": torch.tensor([ids[:length]])} for ids in question["ids"]]
    settings = {"truncation": True, "max_length": length, "return_tensors": "pt"}
    texts = [(text,) for text in question["long_texts"]] + [tuple(pair) for pair in question["pairs"]]
    return [tokenizer(*parts, **settings) for parts in texts]


def encoder_outputs(model: Any, inputs: Sequence[Any], question: Mapping[str, Any]) -> list[str]:
    """Saves the model's outputs for each input, and returns their names."""
    import torch

    names: list[str] = []
    for i, each in enumerate(inputs):
        with torch.no_grad():
            out = model(**each)
        names = [name for name in OUTPUTS if name in out]
        for name in names:
            save(question, f"{name}-{i}", out[name][0])
    return names


def about_embedding(question: Mapping[str, Any]) -> dict[str, Any]:
    from sentence_transformers import __version__

    model = sentence_encoder(question)
    for number, (adapter, weight) in enumerate(question["adapters"]):
        assert weight == 1, "sentence-transformers gives adapters no weights"
        model.load_adapter(adapter, adapter_name=f"adapter-{number}")
    vectors = [model.encode(text, convert_to_numpy=True) for text in question["long_texts"]]
    for i, vector in enumerate(vectors):
        save(question, f"sentence_embedding-{i}", vector)
    return {"class": f"SentenceTransformer {__version__}", "missing": [], "outputs": ["sentence_embedding"]}


def sentence_encoder(question: Mapping[str, Any]) -> Any:
    from sentence_transformers import SentenceTransformer

    place, revision = question["checkpoint"], question["revision"]
    return SentenceTransformer(place, revision=revision, trust_remote_code=False, device="cpu")


def save(question: Mapping[str, Any], name: str, values: Any) -> None:
    import numpy as np

    np.save(Path(question["out"]) / f"{name}.npy", np.asarray(values))


if __name__ == "__main__":
    main()
