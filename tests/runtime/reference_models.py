"""Language models that transformers can generate with and a search can drive, for comparisons token for token."""

from __future__ import annotations

import numpy as np
import torch
from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.generation import logits_process as hf
from transformers.generation.beam_search import BeamSearchScorer
from transformers.modeling_outputs import CausalLMOutput

from edgellm.decoding import Beginning, Ends, GenerationOptions, Hypothesis, SequencePlan, Step, search
from edgellm.types import FloatArray

Ended = tuple[list[Step], list[list[Hypothesis]]]  # the steps of a search and its result

torch.set_num_threads(1)  # the models are tiny


class TableConfig(PretrainedConfig):
    model_type = "edgellm-test-table"

    def __init__(self, vocab_size=40, seed=0, sharpness=1.5, eos_bias=(), **kwargs) -> None:
        self.vocab_size, self.seed, self.sharpness, self.eos_bias = vocab_size, seed, sharpness, list(eos_bias)
        super().__init__(**kwargs)


class TableModel(PreTrainedModel, GenerationMixin):
    """Logits depend on the last three tokens and the length, by table look-up: the same bits in any batch."""

    config_class = TableConfig
    main_input_name = "input_ids"

    def __init__(self, config) -> None:
        super().__init__(config)
        rng = np.random.default_rng(config.seed)
        shape = (4, 64, config.vocab_size)
        table = (rng.standard_normal(shape) * config.sharpness).astype(np.float32)
        for token, bias in config.eos_bias:
            table[0, :, token] += bias
        self.register_buffer("table", torch.from_numpy(table))
        self.anchor = torch.nn.Parameter(torch.zeros(1))  # transformers asks a model's parameters for its dtype

    def forward(self, input_ids, **_) -> CausalLMOutput:
        return CausalLMOutput(logits=torch.stack([self.last_logits(row) for row in input_ids])[:, None])

    def last_logits(self, ids) -> torch.Tensor:
        logits = self.table[3, len(ids) % 64].clone()
        for back, token in enumerate(ids[-3:].flip(0).tolist()):
            logits = logits + self.table[back, token % 64]
        return logits


def table_model(seed=0, **config) -> TableModel:
    return TableModel(TableConfig(seed=seed, **config)).eval()


class FullDecoder:
    """A decoder without a cache: every step runs the torch `model` on all tokens of each row by itself."""

    def __init__(self, model) -> None:
        self.model = model
        self.rows = []
        self.calls = []  # (verb, number of rows)

    def prefill(self, prompts, sources=None, reading=None) -> FloatArray:
        self.rows = [list(map(int, prompt)) for prompt in prompts]
        self.calls.append(("prefill", len(self.rows)))
        return self._logits()

    def decode(self, tokens) -> FloatArray:
        assert len(tokens) == len(self.rows)
        self.rows = [[*row, int(token)] for row, token in zip(self.rows, tokens, strict=True)]
        self.calls.append(("decode", len(self.rows)))
        return self._logits()

    def reorder(self, parents) -> None:
        assert list(parents) != list(range(len(self.rows))), "an identity reorder is wasted work"
        self.rows = [list(self.rows[parent]) for parent in parents]
        self.calls.append(("reorder", len(self.rows)))

    @torch.no_grad()
    def _logits(self) -> FloatArray:
        rows = [self.model(torch.tensor([row])).logits[0, -1] for row in self.rows]
        return torch.stack(rows).numpy().astype(np.float32)


class ReadingDecoder(FullDecoder):
    """It can also read several tokens at once; `runs` counts calls of the model."""

    def __init__(self, model, lookahead=99) -> None:
        super().__init__(model)
        self.most, self.runs = lookahead, 0

    @property
    def lookahead(self) -> int:
        return self.most if len(self.rows) == 1 else 1

    def verify(self, tokens) -> FloatArray:
        assert len(self.rows) == 1
        assert 2 <= len(tokens) <= self.lookahead
        self.runs += 1
        return np.concatenate([super(ReadingDecoder, self).decode(tokens[i : i + 1]) for i in range(len(tokens))])

    def forget(self, count) -> None:
        assert 0 < count < len(self.rows[0])
        del self.rows[0][-count:]

    def decode(self, tokens) -> FloatArray:
        self.runs += 1
        return super().decode(tokens)


class CountingDecoder:
    """Says one more than the last token, modulo 10; so that 9 follows 8."""

    def __init__(self) -> None:
        self.rows, self.calls = [], []

    def prefill(self, prompts, sources=None, reading=None) -> FloatArray:
        self.calls.append(("prefill", len(prompts)))
        self.rows = [int(prompt[-1]) for prompt in prompts]
        return self._logits()

    def decode(self, tokens) -> FloatArray:
        assert len(tokens) == len(self.rows)
        self.calls.append(("decode", len(tokens)))
        self.rows = tokens.tolist()
        return self._logits()

    def reorder(self, parents) -> None:
        self.calls.append(("reorder", parents.tolist()))
        self.rows = [self.rows[parent] for parent in parents]

    def _logits(self) -> FloatArray:
        logits = np.zeros((len(self.rows), 10), dtype=np.float32)
        logits[np.arange(len(self.rows)), (np.array(self.rows) + 1) % 10] = 2
        return logits


def run(model, prompts, eos=(), pad=None, **options) -> Ended:
    """All steps and the result of our search. `eos` and `pad` go where the caller of `search` puts them."""
    return finish(search(FullDecoder(model), beginnings(prompts, Ends(tuple(eos), pad), **options)))


def beginnings(prompts, ends, limits=None, **options) -> list[Beginning]:
    """Prompts with one plan. `limits`: of new tokens, per prompt; None: what the options say."""
    prepared = GenerationOptions.create(**options)
    plan = SequencePlan.create(prepared, ends)
    limits = limits or [prepared.limit(len(prompt)) for prompt in prompts]
    return [Beginning(np.array(prompt), plan, limit) for prompt, limit in zip(prompts, limits, strict=True)]


def finish(steps) -> Ended:
    """Run a search to its end: its steps and its result."""
    seen = []
    while True:
        try:
            seen.append(next(steps))
        except StopIteration as end:
            return seen, end.value


@torch.no_grad()
def transformers_generate(model, prompt, eos=(), pad=0, **options) -> tuple[list[tuple[int, ...]], list[float] | None]:
    """New tokens (cut after the end token) and sequences_scores of transformers for one prompt."""
    output = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        eos_token_id=list(eos) or None,
        pad_token_id=pad,
        return_dict_in_generate=True,
        output_scores=True,
        use_cache=False,
        **options,
    )
    scores = getattr(output, "sequences_scores", None)
    tokens = [cut(row[len(prompt) :].tolist(), eos) for row in output.sequences]
    return tokens, None if scores is None else scores.tolist()


def reference_group_beam_search(model, prompt, eos, pad, options) -> tuple[list[tuple[int, ...]], list[float]]:
    """Diverse beam search as transformers had it up to 4.56, from the parts that 4.57 still has; one prompt."""
    num_beams, num_groups, limit = options["num_beams"], options["num_beam_groups"], options["max_new_tokens"]
    size = num_beams // num_groups
    scorer = BeamSearchScorer(
        batch_size=1,
        num_beams=num_beams,
        device=torch.device("cpu"),
        length_penalty=options["length_penalty"],
        do_early_stopping=options["early_stopping"],
        num_beam_hyps_to_keep=options["num_return_sequences"],
        num_beam_groups=num_groups,
        max_length=len(prompt) + limit,
    )
    diversity = hf.HammingDiversityLogitsProcessor(options["diversity_penalty"], num_beams, num_groups)
    penalty = hf.RepetitionPenaltyLogitsProcessor(options["repetition_penalty"])
    ids = torch.tensor([prompt] * num_beams)
    beam_scores = torch.full((num_beams,), -1e9)
    beam_scores[::size] = 0
    while True:
        logprobs = torch.log_softmax(torch.stack([model.last_logits(row) for row in ids]), dim=-1)
        current = torch.zeros(num_beams, dtype=torch.long)
        next_ids = ids.clone()
        for group in range(num_groups):
            members = slice(group * size, (group + 1) * size)
            scores = diversity(None, penalty(ids[members], logprobs[members]), current, group)
            total = (scores + beam_scores[members, None]).view(1, -1)
            best, index = torch.topk(total, max(2, 1 + len(eos)) * size)
            vocab = scores.shape[-1]
            out = scorer.process(
                ids[members], best, index % vocab, index // vocab,
                pad_token_id=pad, eos_token_id=list(eos) or None, group_index=group, decoder_prompt_len=len(prompt),
            )  # fmt: skip
            beam_scores[members] = out["next_beam_scores"]
            next_ids[members] = ids[members][out["next_beam_indices"]]
            current[members] = out["next_beam_tokens"]
        ids = torch.cat([next_ids, current[:, None]], dim=-1)
        if scorer.is_done or ids.shape[1] == len(prompt) + limit:
            break
    final = scorer.finalize(
        ids, beam_scores, None, None, max_length=len(prompt) + limit,
        pad_token_id=pad, eos_token_id=list(eos) or None, decoder_prompt_len=len(prompt),
    )  # fmt: skip
    rows = [row[len(prompt) :].tolist() for row in final["sequences"]]
    return [cut(row, eos) for row in rows], final["sequence_scores"].tolist()


def cut(tokens, eos) -> tuple[int, ...]:
    """`tokens` up to the first end token: what follows is padding."""
    ends = [i for i, token in enumerate(tokens) if token in eos]
    return tuple(tokens[: ends[0] + 1] if ends else tokens)
