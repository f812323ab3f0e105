"""How well a document answers a query, asked of a model that generates: the share of "yes" beside "no" behind a prompt
(Qwen3-Reranker, Zhang et al., arXiv 2506.05176)."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from edgellm.errors import OptionError, TaskError
from edgellm.models.decoder import Model
from edgellm.pipelines.scores import softmax
from edgellm.text.tokenizer import Tokenizer
from edgellm.types import IntArray

BEFORE = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
)
BEHIND = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
ASKED = "<Instruct>: {}\n<Query>: {}\n<Document>: {}"
MARKS = ("<|im_start|>", "<|im_end|>")  # tokens of the models that were trained so


@dataclass(frozen=True)
class YesOrNo:
    """A model that was trained on this prompt. `no`, `yes`: the tokens of its answers."""

    model: Model
    tokenizer: Tokenizer
    no: int
    yes: int

    @classmethod
    def of(cls, model: Model, tokenizer: Tokenizer, task: str) -> YesOrNo:
        """Raises TaskError for a model that lacks the tokens."""
        found = {token: tokenizer.id_of(token) for token in ("no", "yes", *MARKS)}
        lacking = [token for token, number in found.items() if number is None]
        if lacking:
            raise TaskError(
                f"{task} asks a model that generates as Qwen3-Reranker is asked, and this one's tokenizer has no token "
                f"{lacking[0]!r}; cross-encoders are packages for text-classification with one label"
            )
        return cls(model, tokenizer, found["no"] or 0, found["yes"] or 0)

    def score(self, query: str, document: str, instruction: str, length: int | None) -> float:
        """From 0 to 1. What is asked is cut at the end so that all has at most `length` tokens (None: the model's)."""
        (last,) = deque(self.model.logits_in_chunks(self._asked(query, document, instruction, length)), maxlen=1)
        return float(softmax(np.asarray(last[-1], np.float64)[[self.no, self.yes]])[1])

    def _asked(self, query: str, document: str, instruction: str, length: int | None) -> IntArray:
        before, asked, behind = (
            self.tokenizer.encode(text, add_special_tokens=False)
            for text in (BEFORE, ASKED.format(instruction, query, document), BEHIND)
        )
        most = self.model.manifest.context_length
        room = min(most, most if length is None else length) - len(before) - len(behind)
        if room < 1:
            raise OptionError(
                f"max_length leaves no room for a document; the prompt has {len(before) + len(behind)} tokens"
            )
        return np.concatenate([before, asked[:room], behind])
