"""ERNIE: BERT with a task type per token, which is 0 for every task but those of its training."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from edgellm_export.architectures import bert
from edgellm_export.architectures import encoder as e
from edgellm_export.blocks.build import Build
from edgellm_export.checkpoint.config import ConfigReader


@dataclass(frozen=True)
class Ernie(bert.Bert):
    """`tasks`: rows of the task type table, 0 where there is none."""

    tasks: int

    def embed(self, b: Build, ids: ir.Value, types: ir.Value | None) -> ir.Value:
        c, n = self.config, self.names
        table = b.tensors.take(f"{n.types}.weight", (c.types, c.hidden_size)).rows(0, c.types)
        if self.tasks:
            name = f"{n.prefix}embeddings.task_type_embeddings.weight"
            table = table + b.tensors.take(name, (self.tasks, c.hidden_size)).rows(0, 1)
        return e.embed(b, c, n, ids, types, table)


def parse(config: ConfigReader) -> Ernie:
    tasks = config.integer("task_type_vocab_size", 3) if config.flag("use_task_id") else 0
    return Ernie(e.read_config(config), bert.bert_names("ernie."), tasks)
