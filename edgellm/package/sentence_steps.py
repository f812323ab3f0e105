"""The steps of a sentence encoder: what modules.json and the config of each say, and what edgellm builds of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from edgellm.errors import CheckpointError, UnsupportedModelError, nearest
from edgellm.package.file_names import is_inside
from edgellm.package.layouts import Pooling

MODULES, MODEL_CONFIG = "modules.json", "config_sentence_transformers.json"
# Of the Transformer module, by the age of the checkpoint: the first that is there.
SENTENCE_CONFIGS = (
    "sentence_bert_config.json", "sentence_roberta_config.json", "sentence_distilbert_config.json",
    "sentence_camembert_config.json", "sentence_albert_config.json", "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
)  # fmt: skip
LIBRARY = "sentence_transformers."
# What BGE-M3 has for tokens, beside modules.json: by the output of the graph, the linear layer, in a file of its own.
TOKEN_HEADS: Mapping[str, str] = {"sparse_weights": "sparse_linear", "colbert_vectors": "colbert_linear"}
TOKEN_HEAD_FILES = tuple(f"{layer}.pt" for layer in TOKEN_HEADS.values())
STEPS = ("Transformer", "Pooling", "Dense", "Dropout", "Normalize")
BY_TOKEN = "export with --task feature-extraction for the states of all tokens"
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)
# The older spelling of the same, one key for each way.
FLAGS: Mapping[str, str] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
Activation = Literal["Identity", "Tanh", "ReLU", "Sigmoid", "GELU"]
ACTIVATIONS: Mapping[str, Activation] = {
    "torch.nn.modules.linear.Identity": "Identity",
    "torch.nn.modules.activation.Tanh": "Tanh",
    "torch.nn.modules.activation.ReLU": "ReLU",
    "torch.nn.modules.activation.Sigmoid": "Sigmoid",
    "torch.nn.modules.activation.GELU": "GELU",
}
ENDS: Mapping[str, Any] = {"module_input_name": "sentence_embedding", "module_output_name": "sentence_embedding"}
# What may stand in the Transformer module's config besides its length: what has no effect on the numbers of a text, and
# the values at which the rest has none.
WITHOUT_EFFECT = {"max_seq_length", "do_lower_case", "unpad_inputs", "modality_config", *ENDS}
STATES = {"method": "forward", "method_output_name": "last_hidden_state"}
USUAL: Mapping[str, Any] = {"transformer_task": "feature-extraction", "module_output_name": "token_embeddings"}
LOADING = {
    "attn_implementation", "torch_dtype", "dtype", "cache_dir", "token", "use_auth_token", "revision", "device_map",
    "local_files_only", "low_cpu_mem_usage", "use_safetensors", "trust_remote_code", "use_fast",
}  # fmt: skip
OLD_ARGUMENTS = {"model_args": "model_kwargs", "tokenizer_args": "processor_kwargs", "config_args": "config_kwargs"}


@dataclass(frozen=True)
class DenseStep:
    """A linear layer behind the pooling, whose weights lie in the directory `path`."""

    path: str
    inputs: int
    outputs: int
    bias: bool
    activation: Activation


@dataclass(frozen=True)
class Module:
    """One step from text to vector. `kind`: the last part of its class's name."""

    kind: str
    path: str

    @property
    def config(self) -> str:
        return f"{self.path}/config.json"


def modules_of(files: Mapping[str, bytes], *, strict: bool = True) -> Sequence[Module]:
    """`strict`: only classes of the library, whose names say what they do."""
    entries = _json(files, MODULES)
    try:
        found = [(str(entry["type"]), str(entry["path"])) for entry in entries]
    except (TypeError, KeyError) as error:
        raise CheckpointError(f"{MODULES} is not a list of modules with type and path ({error!r})") from error
    foreign = [name for name, _ in found if not name.startswith(LIBRARY)]
    if foreign and strict:
        raise UnsupportedModelError(
            f"{MODULES} has a step {foreign[0]}, code that comes with the checkpoint, which is never run; {BY_TOKEN}"
        )
    for _, path in found:
        if path and not is_inside(path):
            raise CheckpointError(f"{MODULES}: the path {path!r} is not inside the checkpoint")
    return [Module(name.rsplit(".", 1)[-1], "" if path == "." else path.rstrip("/")) for name, path in found]


def check_order(kinds: Sequence[str]) -> None:
    """Transformer, Pooling, linear layers, unit length at the end."""
    unknown = [kind for kind in kinds if kind not in STEPS]
    behind = [kind for kind in kinds[2:] if kind != "Dropout"]
    in_order = list(kinds[:2]) == ["Transformer", "Pooling"] and set(behind[:-1]) <= {"Dense"}
    if unknown or not in_order or (behind and behind[-1] not in ("Dense", "Normalize")):
        what = f"a step {unknown[0]}" if unknown else f"the steps {', '.join(kinds)}"
        raise UnsupportedModelError(
            f"{MODULES} has {what}; edgellm builds sentence encoders of Transformer, Pooling, any number of Dense, and "
            f"Normalize, in that order; {BY_TOKEN}"
        )


def transformer_config(files: Mapping[str, bytes]) -> Mapping[str, Any]:
    """The config of the Transformer module, with the newer names of what goes to transformers. Raises
    UnsupportedModelError for what changes the numbers in ways that edgellm does not know."""
    name = next((name for name in SENTENCE_CONFIGS if name in files and json_object(files, name)), None)
    if name is None:
        return {}
    config = {OLD_ARGUMENTS.get(key, key): value for key, value in json_object(files, name).items()}
    for key, usual in USUAL.items():
        if config.get(key, usual) != usual:
            raise UnsupportedModelError(f"{name}: {key} is {config[key]!r}, edgellm builds {usual!r}; {BY_TOKEN}")
    modalities = config.get("modality_config", {"text": STATES})
    if not isinstance(modalities, dict) or "message" in modalities or modalities.get("text") != STATES:
        raise UnsupportedModelError(f"{name}: modality_config is {modalities!r}, edgellm builds {{'text': {STATES}}}")
    known = {"model_kwargs": LOADING, "config_kwargs": LOADING, "processor_kwargs": {*LOADING, "model_max_length"}}
    if not isinstance(config.get("processor_kwargs") or {}, dict):
        raise CheckpointError(f"{name}: processor_kwargs is no JSON object; download it again")
    for key, value in config.items():
        if key in WITHOUT_EFFECT or key in USUAL or not value:
            continue
        rest = sorted(set(value) - known[key]) if key in known and isinstance(value, dict) else [""]
        if rest:
            what = f"{key} sets {', '.join(rest)}" if key in known else f"{key} is {value!r}"
            raise UnsupportedModelError(f"{name}: {what}, which edgellm does not do; {BY_TOKEN}")
    return config


def poolings_of(
    files: Mapping[str, bytes], name: str, hidden_size: int | None, *, has_prompts: bool
) -> tuple[Pooling, ...]:
    """What stands side by side in a text's vector."""
    if name not in files:
        raise CheckpointError(f"the checkpoint lacks {name}, which {MODULES} names; download it")
    config = dict(json_object(files, name))
    size = config.pop("word_embedding_dimension", config.get("embedding_dimension", hidden_size))
    config.pop("embedding_dimension", None)
    if hidden_size is not None and size != hidden_size:
        raise CheckpointError(f"{name}: the dimension is {size!r}, and the model's hidden states have {hidden_size}")
    if config.pop("include_prompt", True) is not True and has_prompts:
        raise UnsupportedModelError(
            f"{name}: include_prompt is false, and {MODEL_CONFIG} has prompts, whose tokens edgellm does not leave "
            f"out; {BY_TOKEN}"
        )
    flags = [mode for key, mode in FLAGS.items() if config.pop(key, False)]
    given = config.pop("pooling_mode", flags or "mean")
    if config:
        raise UnsupportedModelError(f"{name} has {', '.join(sorted(config))}, which edgellm does not know; {BY_TOKEN}")
    chosen = [str(mode) for mode in given] if isinstance(given, list) else [str(given)]
    unknown = [mode for mode in chosen if mode not in POOLINGS]
    if unknown or not chosen:
        what = unknown[0] if unknown else "a pooling of nothing"
        raise UnsupportedModelError(f"{name}: edgellm does not build {what}; {nearest(what, POOLINGS)}")
    return tuple(mode for wanted in chosen for mode in POOLINGS if mode == wanted)


def dense_of(files: Mapping[str, bytes], module: Module) -> DenseStep:
    name = module.config
    if name not in files:
        raise CheckpointError(f"the checkpoint lacks {name}, which {MODULES} names; download it")
    config = json_object(files, name)
    activation = config.get("activation_function", "torch.nn.modules.activation.Tanh")
    sizes: tuple[Any, Any] = config.get("in_features"), config.get("out_features")
    if not isinstance(activation, str):
        raise CheckpointError(f"{name}: activation_function is {activation!r}, expected the name of a class")
    if activation not in ACTIVATIONS:
        raise UnsupportedModelError(f"{name}: edgellm does not build {activation}; {nearest(activation, ACTIVATIONS)}")
    if any(type(size) is not int or size < 1 for size in sizes):
        raise CheckpointError(f"{name}: in_features and out_features are {sizes}, expected whole numbers from 1")
    if config.get("use_residual"):
        raise UnsupportedModelError(f"{name}: edgellm builds layers without use_residual; {BY_TOKEN}")
    check_ends(name, config)
    return DenseStep(module.path, sizes[0], sizes[1], config.get("bias", True) is True, ACTIVATIONS[activation])


def check_normalize(files: Mapping[str, bytes], module: Module) -> None:
    if module.config in files:
        check_ends(module.config, json_object(files, module.config))


def check_ends(name: str, config: Mapping[str, Any]) -> None:
    """Raises UnsupportedModelError for a step that does not read the vector of the whole text, or not give it."""
    for key, usual in ENDS.items():
        if config.get(key) not in (None, usual):
            raise UnsupportedModelError(f"{name}: {key} is {config[key]!r}, edgellm builds {usual!r}; {BY_TOKEN}")


def json_object(files: Mapping[str, bytes], name: str) -> Mapping[str, Any]:
    data = _json(files, name)
    if not isinstance(data, dict):
        raise CheckpointError(f"{name} is not a JSON object; download it again")
    return data


def _json(files: Mapping[str, bytes], name: str) -> Any:
    try:
        return json.loads(files[name])
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{name} is not valid JSON ({error}); download it again") from error
