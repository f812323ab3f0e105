"""An encoder that transformers reads as OpenVINO's graph: `ov_convert.py CHECKPOINT OUT`. optimum-intel does not export
every family."""

from __future__ import annotations

import sys

import openvino
import torch
from transformers import AutoModel


class States(torch.nn.Module):
    """The last hidden states alone."""

    def __init__(self, checkpoint: str) -> None:
        super().__init__()
        self.model = AutoModel.from_pretrained(checkpoint, attn_implementation="sdpa", dtype=torch.float32)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        states: torch.Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask)[0]
        return states


if __name__ == "__main__":
    checkpoint, out = sys.argv[1:]
    ids = torch.ones(2, 160, dtype=torch.int64)  # wider than the windows
    sizes = {0: torch.export.Dim("batch", min=1, max=64), 1: torch.export.Dim("length", min=2, max=8192)}
    with torch.no_grad():
        example = (ids, torch.ones_like(ids))
        program = torch.export.export(States(checkpoint).eval(), example, dynamic_shapes=(sizes, sizes))
        made = openvino.convert_model(program)
    openvino.save_model(made, f"{out}/openvino_model.xml", compress_to_fp16=False)
