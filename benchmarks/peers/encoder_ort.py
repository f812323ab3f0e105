"""Worker: an ONNX encoder on ONNX Runtime as it is by default."""

from __future__ import annotations

import onnxruntime

from encoder_arm import encoder_arm, feeds
from protocol import Arm, Settings, serve


def load(settings: Settings) -> Arm:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings.threads
    session = onnxruntime.InferenceSession(settings.model, options, providers=["CPUExecutionProvider"])
    return encoder_arm(lambda ids: session.run(["last_hidden_state"], feeds(ids))[0])


if __name__ == "__main__":
    serve(load)
