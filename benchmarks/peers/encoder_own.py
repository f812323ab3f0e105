"""Worker: edgellm on an encoder, through its public API."""

from __future__ import annotations

import edgellm
from encoder_arm import encoder_arm
from protocol import Arm, Settings, serve


def load(settings: Settings) -> Arm:
    model = edgellm.load(settings.model, threads=settings.threads)
    return encoder_arm(lambda ids: [result.logits for result in model.run(list(ids))])


if __name__ == "__main__":
    serve(load)
