"""ERNIE: BERT with a task type per token, which is 0 for every task but those of its training."""

from __future__ import annotations

from dataclasses import dataclass

from edgellm.types import FloatArray
from edgellm_export.architectures.bert import MASKED, bert_names, bert_places, text_head
from edgellm_export.architectures.encoder import PostNormEncoder, read_config
from edgellm_export.blocks.build import Build
from edgellm_export.checkpoint.config import ConfigReader

PREFIX = "ernie."


@dataclass(frozen=True)
class Ernie(PostNormEncoder):
    """`tasks`: rows of the task type table, 0 where there is none."""

    tasks: int = 0

    def type_table(self, b: Build) -> FloatArray:
        table = super().type_table(b)
        if not self.tasks:
            return table
        name = f"{PREFIX}embeddings.task_type_embeddings.weight"
        return table + b.tensors.take(name, (self.tasks, self.config.hidden_size)).rows(0, 1)


def parse(config: ConfigReader) -> Ernie:
    tasks = config.integer("task_type_vocab_size") if config.flag("use_task_id") else 0
    return Ernie(read_config(config), bert_names(PREFIX), bert_places(PREFIX), MASKED, text_head(PREFIX), None, tasks)
