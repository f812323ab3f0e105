"""Worker: an ONNX encoder on OpenVINO at its default precision (bfloat16 where the processor has it)."""

from __future__ import annotations

import openvino

from encoder_arm import encoder_arm, feeds
from protocol import Arm, Settings, serve


def load(settings: Settings) -> Arm:
    hints = {"INFERENCE_NUM_THREADS": settings.threads, "PERFORMANCE_HINT": "LATENCY"}
    model = openvino.Core().compile_model(settings.model, "CPU", hints)
    names = {name for each in model.inputs for name in each.names}
    return encoder_arm(lambda ids: model({name: each for name, each in feeds(ids).items() if name in names})[0])


if __name__ == "__main__":
    serve(load)
