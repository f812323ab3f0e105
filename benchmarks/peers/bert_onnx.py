"""CHECKPOINT OUT: BERT's last hidden states as fp32 ONNX, by torch's exporter; and OUT-int8, by ONNX Runtime's own
dynamic quantization, per channel."""

from __future__ import annotations

import sys
import warnings

import torch
import transformers
from onnxruntime.quantization import QuantType, quantize_dynamic

NAMES = ("input_ids", "attention_mask", "token_type_ids")


class States(torch.nn.Module):
    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
        return self.model(input_ids=ids, attention_mask=mask, token_type_ids=types).last_hidden_state


def main(checkpoint: str, out: str) -> None:
    model = transformers.BertModel.from_pretrained(checkpoint, attn_implementation="eager", add_pooling_layer=False)
    ids = torch.randint(5, 1000, (2, 16))
    axes = {name: {0: "batch", 1: "tokens"} for name in (*NAMES, "last_hidden_state")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            States(model.eval().float()), (ids, torch.ones_like(ids), torch.zeros_like(ids)), out, dynamo=False,
            opset_version=17, input_names=list(NAMES), output_names=["last_hidden_state"], dynamic_axes=axes,
        )  # fmt: skip
    quantize_dynamic(out, out.replace(".onnx", "-int8.onnx"), per_channel=True, weight_type=QuantType.QInt8)


if __name__ == "__main__":
    main(*sys.argv[1:])
