"""What a manifest is made of: graphs, caches, weights, and what only one kind of model has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from edgellm.errors import OptionError, nearest

Task = Literal[
    "text-generation",
    "text2text-generation",
    "automatic-speech-recognition",
    "fill-mask",
    "text-classification",
    "token-classification",
    "question-answering",
    "feature-extraction",
]
GENERATION_TASKS: tuple[Task, ...] = ("text-generation", "text2text-generation")
SPEECH_TASKS: tuple[Task, ...] = ("automatic-speech-recognition",)
LABEL_TASKS: tuple[Task, ...] = ("text-classification", "token-classification")
ENCODER_TASKS: tuple[Task, ...] = ("fill-mask", *LABEL_TASKS, "question-answering", "feature-extraction")
Pooling = Literal["mean", "cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
USUAL_PROMPTS = ("query", "document")  # nothing, where a checkpoint has none of the name
Problem = Literal["single_label_classification", "multi_label_classification", "regression"]
Target = Literal["cpu", "cuda"]
Precision = Literal["fp32", "fp16", "int8", "int4", "mixed"]  # "mixed": matrices of 8 and of 4 bits
INTEGERS: tuple[Precision, ...] = ("int8", "int4", "mixed")
KVCacheType = Literal["float", "int8"]  # "float": the type of the graph's activations
KVCacheChoice = Literal["auto", "bfloat16"]  # when a package is loaded; "auto": what its graph has

# What the names of outputs with attention weights begin with; the layer's number follows.
ATTENTIONS, CROSS_ATTENTIONS = "attentions.", "cross_attentions."
CROSS_QUERIES = "cross_queries."  # and those with what it looks for

# Of what short convolutions read: how many tokens' a cache has at least, if it has so many tokens, and after how many
# tokens the last of it is remembered, to go back to.
CONV_SLOTS, CONV_STEP = 192, 64
STATES_KEPT = 2  # of a row of a model with state spaces: how many prompts' ends a cache can go back to
STATES_RUN = 256  # tokens that such a model reads in one run at most

CACHE_ITEM_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1}


@dataclass(frozen=True)
class GraphFile:
    """One ONNX graph. `inputs` and `outputs` are the names at its boundary, cache tensors excluded."""

    file: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def attentions(self) -> tuple[str, ...]:
        """The outputs with attention weights, [batch, heads, tokens, tokens], one for each layer; mostly none."""
        return tuple(name for name in self.outputs if name.startswith(ATTENTIONS))

    @property
    def cross_attentions(self) -> tuple[str, ...]:
        """The same of a decoder's attention to its source, [batch, heads, target tokens, source tokens]."""
        return tuple(name for name in self.outputs if name.startswith(CROSS_ATTENTIONS))

    @property
    def cross_queries(self) -> dict[int, str]:
        """By the layer, the outputs with its queries to the source, [batch, target tokens, heads * head_dim]: some
        layers' of a model of speech, for when words are said."""
        names = [name for name in self.outputs if name.startswith(CROSS_QUERIES)]
        return {int(name.removeprefix(CROSS_QUERIES)): name for name in names}


def _array_dtype(dtype: str) -> str:
    """Numpy has no bfloat16, of which uint16 are the bits."""
    return "uint16" if dtype == "bfloat16" else dtype


@dataclass(frozen=True)
class CacheTensor:
    """One tensor of a cache: [batch, heads, capacity, size]. `ports`: its names in the graph as past and present, of
    keys and of values where both are the same memory, and of all layers that share it. `kernel`: of a short
    convolution that reads it, 0 for others. `slots`: the capacity of a state, however many tokens a row has; 0 for
    others."""

    ports: tuple[tuple[str, str], ...]
    heads: int
    size: int
    dtype: str
    kernel: int = 0
    slots: int = 0

    @property
    def recurrent(self) -> bool:
        """Whether it is something else than keys and values, of which there are some for each token."""
        return bool(self.kernel or self.slots)

    @property
    def array_dtype(self) -> str:
        """What numpy calls the arrays."""
        return _array_dtype(self.dtype)

    @property
    def bytes_per_token(self) -> int:
        """Bytes that one token of one row occupies."""
        return self.heads * self.size * CACHE_ITEM_BYTES[self.dtype]


@dataclass(frozen=True)
class ConvLayout:
    """The layers that have a short convolution in the place of attention. Of each token they keep what the convolution
    read, [width], where others keep keys and values: the "conv" side of the layer, [batch, 1, slots, width]. A token
    reads the last `kernel` of them, its own included, so the tensor need not have them all: token i is in slot i modulo
    their number."""

    layers: tuple[int, ...]
    width: int
    kernel: int
    dtype: Literal["float32", "float16"]

    @property
    def bytes_per_slot(self) -> int:
        """Bytes that what one token of one row left takes in all layers."""
        return len(self.layers) * self.width * CACHE_ITEM_BYTES[self.dtype]


@dataclass(frozen=True)
class StateLayout:
    """The layers that have a state space (Mamba-2) in the place of attention. Of a row they keep in float32, however
    many tokens it has, two sides: "conv", the last `kernel` - 1 inputs of the convolution, [batch, 1, kernel - 1,
    width], and "ssm", the state of each head, [batch, num_heads, head_dim, state_size]. Both are undefined for a row
    without tokens. A run reads at most STATES_RUN tokens."""

    layers: tuple[int, ...]
    width: int
    kernel: int
    num_heads: int
    head_dim: int
    state_size: int

    @property
    def bytes_per_row(self) -> int:
        """Bytes of both in all layers."""
        numbers = (self.kernel - 1) * self.width + self.num_heads * self.head_dim * self.state_size
        return len(self.layers) * numbers * CACHE_ITEM_BYTES["float32"]

    def fits(self, num_layers: int) -> bool:
        """Whether it is of some of so many layers, ascending, or all, and of sizes that can be."""
        sizes = min(self.width, self.kernel - 1, self.num_heads, self.head_dim, self.state_size)
        ascending = list(self.layers) == sorted({*self.layers})
        return sizes >= 1 and ascending and bool(self.layers) and 0 <= self.layers[0] <= self.layers[-1] < num_layers


@dataclass(frozen=True)
class CacheLayout:
    """The key/value cache: for each of `num_layers` two tensors of [batch, num_kv_heads, capacity, head_dim], or what
    `conv` and `states` say.

    `past` and `present` are name patterns with `{layer}` and `{side}` ("key" or "value"). `growth` says what a step
    does: "in_place" writes into the spare capacity of the buffer that is bound as past and present alike, "concat"
    gives the past back with the new tokens behind it. The scales of an int8 cache are constants of the graph. No
    package has "bfloat16": it is what a cache of float32 may be loaded as. `values_are_keys`: a layer's values are
    the numbers of its keys, and both tensors may be the same memory. `shared`: for each of the last layers, the earlier
    one whose keys and values it has: its tensors hold the same numbers, and may be the same memory.
    """

    num_layers: int
    num_kv_heads: int
    head_dim: int
    dtype: Literal["float32", "float16", "bfloat16", "int8"]
    growth: Literal["in_place", "concat"] = "in_place"
    past: str = "past_key_values.{layer}.{side}"
    present: str = "present.{layer}.{side}"
    conv: ConvLayout | None = None
    values_are_keys: bool = False
    shared: tuple[int, ...] = ()
    states: StateLayout | None = None

    @property
    def array_dtype(self) -> str:
        """What numpy calls the arrays of keys and values: see CacheTensor."""
        return _array_dtype(self.dtype)

    @property
    def num_own_layers(self) -> int:
        """Those whose memory is not another's."""
        return self.num_layers - len(self.shared)

    @property
    def num_attention_layers(self) -> int:
        """Those that keep keys and values."""
        return self.num_own_layers - sum(len(each.layers) for each in (self.conv, self.states) if each is not None)

    def as_bfloat16(self) -> CacheLayout:
        """The same cache with keys and values in half the bytes. Raises OptionError where it cannot be had."""
        if not self.num_attention_layers:
            raise OptionError(
                "kv_cache is 'bfloat16', and no layer of the package has keys and values; leave kv_cache out"
            )
        if self.dtype != "float32" or self.growth != "in_place":
            found = "one that its graph makes anew at each step" if self.growth == "concat" else f"one of {self.dtype}"
            raise OptionError(
                "kv_cache is 'bfloat16', which a cache of float32 that is written in place can be loaded as, and the "
                f"package has {found}; leave kv_cache out, or export the package for the CPU without --kv-cache"
            )
        return replace(self, dtype="bfloat16")

    def names(self) -> list[tuple[str, str]]:
        """The graph's past and present tensors, layer by layer, key before value."""
        return [port for tensor in self.tensors() for port in tensor.ports]

    def tensors(self) -> list[CacheTensor]:
        """The same with what they hold."""
        return [tensor for layer in range(self.num_own_layers) for tensor in self._of_layer(layer)]

    def bytes_per_token(self) -> int:
        """Bytes that one token of one row occupies in the whole cache: keys and values, and of convolutions what is
        remembered now and then."""
        sides = 1 if self.values_are_keys else 2
        keys = sides * self.num_attention_layers * self.num_kv_heads * self.head_dim * CACHE_ITEM_BYTES[self.dtype]
        conv = self.conv
        return keys if conv is None else keys + -(-(conv.kernel - 1) * conv.bytes_per_slot // CONV_STEP)

    def bytes_per_row(self) -> int:
        """Bytes that a row occupies however many tokens it has, once these are CONV_SLOTS; copies of states count."""
        states = 0 if self.states is None else (1 + STATES_KEPT) * self.states.bytes_per_row
        return states + (0 if self.conv is None else CONV_SLOTS * self.conv.bytes_per_slot)

    def row_bytes(self, tokens: int) -> int:
        """Bytes of a row of so many tokens."""
        slots = 0 if self.conv is None else min(tokens, CONV_SLOTS) * self.conv.bytes_per_slot
        states = 0 if self.states is None else self.bytes_per_row()
        return tokens * self.bytes_per_token() + slots + states

    def _of_layer(self, layer: int) -> list[CacheTensor]:
        readers = [self.num_own_layers + i for i, source in enumerate(self.shared) if source == layer]

        def tensor(
            sides: Sequence[str], heads: int, size: int, dtype: str, kernel: int = 0, slots: int = 0
        ) -> CacheTensor:
            ports = tuple(
                (self.past.format(layer=each, side=side), self.present.format(layer=each, side=side))
                for each in (layer, *readers)
                for side in sides
            )
            return CacheTensor(ports, heads, size, dtype, kernel, slots)

        if self.conv is not None and layer in self.conv.layers:
            return [tensor(["conv"], 1, self.conv.width, self.conv.dtype, self.conv.kernel)]
        states = self.states
        if states is not None and layer in states.layers:
            return [
                tensor(["conv"], 1, states.width, "float32", slots=states.kernel - 1),
                tensor(["ssm"], states.num_heads, states.state_size, "float32", slots=states.head_dim),
            ]
        apart = [("key", "value")] if self.values_are_keys else [("key",), ("value",)]
        return [tensor(sides, self.num_kv_heads, self.head_dim, self.dtype) for sides in apart]


@dataclass(frozen=True)
class CrossCacheLayout:
    """The keys and values of a source that each layer of a decoder reads: 2 x `num_layers` tensors of
    [sources, num_heads, source tokens, head_dim]. The encoder makes them once, under the names `present`; the decoder
    takes them under the names `past`."""

    num_layers: int
    num_heads: int
    head_dim: int
    dtype: Literal["float32", "float16"]
    past: str = "past_key_values.{layer}.encoder.{side}"
    present: str = "present.{layer}.encoder.{side}"

    def names(self) -> list[tuple[str, str]]:
        """The encoder's output and the decoder's input for each tensor, layer by layer, key before value."""
        return _names(self.num_layers, self.present, self.past)

    def bytes_per_token(self) -> int:
        """Bytes that one token of one source occupies in all layers."""
        return 2 * self.num_layers * self.num_heads * self.head_dim * CACHE_ITEM_BYTES[self.dtype]


def _names(layers: int, one: str, other: str) -> list[tuple[str, str]]:
    places = [{"layer": layer, "side": side} for layer in range(layers) for side in ("key", "value")]
    return [(one.format(**place), other.format(**place)) for place in places]


@dataclass(frozen=True)
class Rope:
    """What the runtime must do for rotary tables that depend on the sequence length.

    `has_length_input`: the graph has an optional input `rope_length` [1] int64 (default 0). The tables follow
    max(row length, rope_length); prefill in chunks feeds the whole prompt's length so that it equals one-shot prefill.
    `recompute_beyond`: when a row grows from this many tokens to more, its cache is computed anew from its tokens
    (the original model does so), because all keys must come from the same table.
    """

    has_length_input: bool = False
    recompute_beyond: int | None = None

    @property
    def changes_with_every_token(self) -> bool:
        """Whether the tables are scaled dynamically (NTK) beyond the trained length, which is not known here."""
        return self.has_length_input and self.recompute_beyond is None


@dataclass(frozen=True)
class Embedding:
    """How a sentence encoder makes one vector of a text: the graph pools the hidden states of its tokens, the runtime
    makes the result a unit vector if `normalize`. `max_tokens`: longer texts were cut in training. `prompts`: by name,
    what may stand before a text; the one called `default_prompt` does where the caller does not say. `further`: other
    poolings, whose vectors stand behind the first."""

    pooling: Pooling
    normalize: bool
    max_tokens: int
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    further: tuple[Pooling, ...] = ()

    @property
    def poolings(self) -> tuple[Pooling, ...]:
        return (self.pooling, *self.further)

    def before(self, prompt: str | None, name: str | None) -> str:
        """What stands before a text: the prompt, or that of the name, or the default one. Raises OptionError."""
        if prompt is not None and name is not None:
            raise OptionError("prompt and prompt_name were both given; leave out one of them")
        if prompt is not None:
            return prompt
        chosen = self.default_prompt if name is None else name
        if chosen is not None and chosen not in {*self.prompts, *USUAL_PROMPTS}:
            raise OptionError(
                f"the checkpoint has no prompt {chosen!r}; {nearest(chosen, {*self.prompts, *USUAL_PROMPTS})}"
            )
        return "" if chosen is None else self.prompts.get(chosen, "")


@dataclass(frozen=True)
class DecoderFacts:
    """What the runtime must know of a decoder-only model."""

    cache: CacheLayout
    rope: Rope = Rope()

    def bytes_per_token(self) -> int:
        """Bytes that one token of one row occupies in the cache."""
        return self.cache.bytes_per_token()

    def row_bytes(self, tokens: int) -> int:
        """Bytes that a row of so many tokens occupies in the cache."""
        return self.cache.row_bytes(tokens)

    def source_tokens(self, length: int) -> int:
        """0: a decoder has no source."""
        return 0


@dataclass(frozen=True)
class EncoderDecoderFacts:
    """What the runtime must know of an encoder-decoder. `cross_cache`: its decoder's view of the source.
    `source_length`: of the longest source, in tokens; None for no limit. `global_attention`: the token of a source that
    sees all others and is seen by them, where these see only those nearby. `counts_by_row`: the decoder's graph counts
    each row's positions by itself, so that targets of different lengths run together."""

    cache: CacheLayout
    cross_cache: CrossCacheLayout
    source_length: int | None = None
    global_attention: Literal["first"] | None = None
    counts_by_row: bool = False

    def bytes_per_token(self) -> int:
        """Bytes that one token of a target and one of its source occupy in the caches."""
        return self.cache.bytes_per_token() + self.cross_cache.bytes_per_token()

    def row_bytes(self, tokens: int) -> int:
        """Bytes that so many tokens of a target, and as many of its source, occupy in the caches."""
        return tokens * self.bytes_per_token()

    def source_tokens(self, length: int) -> int:
        """How many of a target's tokens occupy the bytes of a source of so many."""
        return -(-length * self.cross_cache.bytes_per_token() // self.cache.bytes_per_token())


@dataclass(frozen=True)
class AudioFeatures:
    """What an encoder of speech reads: a log-mel spectrogram of `mel_bins` by `frames`. `sampling_rate`: in Hertz.
    `n_fft`, `hop_length`: samples that a frame is made of, and from one frame to the next. `longest`: frames of the
    longest recording, where it reads samples themselves, as one bin of frames of one sample, and any number from
    `frames` on; 0 for a spectrogram."""

    sampling_rate: int
    n_fft: int
    hop_length: int
    mel_bins: int
    frames: int
    longest: int = 0

    @property
    def raw(self) -> bool:
        """Whether samples themselves are read."""
        return self.longest > 0

    @property
    def samples(self) -> int:
        """Of all frames."""
        return self.frames * self.hop_length


@dataclass(frozen=True)
class SpeechFacts(EncoderDecoderFacts):
    """What the runtime must know of an encoder-decoder whose source is `audio`: input_features [B, mel_bins, frames]
    float32 in the place of tokens, `source_length` positions for the decoder to read."""

    audio: AudioFeatures = field(kw_only=True)


@dataclass(frozen=True)
class EncoderFacts:
    """What the runtime must know of an encoder-only model. `labels`: what the outputs stand for, in order; none unless
    the task is a classification. `problem_type`: of text-classification, None where the checkpoint does not say.
    `rows_apart`: the graph mixes the rows of a batch (one scale for all), so each is run by itself. `lengths_apart`:
    padding changes what it gives for a row, so rows run with those of their length."""

    labels: tuple[str, ...] = ()
    problem_type: Problem | None = None
    embedding: Embedding | None = None
    rows_apart: bool = False
    lengths_apart: bool = False

    def bytes_per_token(self) -> int:
        """0: an encoder has no cache."""
        return 0

    def row_bytes(self, tokens: int) -> int:
        """0: an encoder has no cache."""
        return 0


ModelFacts = DecoderFacts | EncoderDecoderFacts | SpeechFacts | EncoderFacts
# The tasks that each kind of model is for.
TASKS: Mapping[type[ModelFacts], tuple[Task, ...]] = {
    DecoderFacts: ("text-generation",),
    EncoderDecoderFacts: ("text2text-generation",),
    SpeechFacts: SPEECH_TASKS,
    EncoderFacts: ENCODER_TASKS,
}


@dataclass(frozen=True)
class TokenIds:
    """Special token ids. `eos` is a list because chat models end on any of several. `decoder_start`: what the target of
    an encoder-decoder begins with."""

    bos: int | None = None
    eos: tuple[int, ...] = ()
    pad: int | None = None
    decoder_start: int | None = None

    @classmethod
    def of(cls, settings: Mapping[str, Any], vocab_size: int) -> TokenIds:
        """The ids that settings of generation name: see `edgellm.package.generation`. Those that no token has are left
        out."""

        def ids(key: str) -> tuple[int, ...]:
            value = settings.get(key)
            values = value if isinstance(value, list) else [value]
            return tuple(v for v in values if type(v) is int and 0 <= v < vocab_size)

        def first(key: str) -> int | None:
            return next(iter(ids(key)), None)

        decoder_start = first("decoder_start_token_id")
        return cls(first("bos_token_id"), ids("eos_token_id"), first("pad_token_id"), decoder_start)


@dataclass(frozen=True)
class Weights:
    """How the weights are stored. `scheme` is a short name such as "blockwise-32"; details are in the report."""

    precision: Precision
    scheme: str
    tied_embedding: bool


@dataclass(frozen=True)
class FileEntry:
    """Size in bytes and lower-case hexadecimal sha256 of one file of the package; "" where nothing recorded one, in a
    directory without edgellm.json."""

    size: int
    sha256: str
