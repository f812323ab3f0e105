"""What is exported: a Hugging Face checkpoint (directory or hub id) or a GGUF file, opened without torch.

Weights stay on disk until a slice of rows is asked for, so opening costs memory for names and shapes only.
"""

from __future__ import annotations

from edgellm_export.checkpoint.accounting import TensorReader
from edgellm_export.checkpoint.contents import Checkpoint

__all__ = ["Checkpoint", "TensorReader"]
