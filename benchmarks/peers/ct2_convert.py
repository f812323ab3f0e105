"""A checkpoint with a tokenizer.json into CTranslate2's format: `ct2_convert.py CHECKPOINT OUT QUANTIZATION`.

Its own command wants the tokenizer class of the family, which needs sentencepiece files; the vocabulary is all that it
takes from it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ctranslate2.converters import TransformersConverter
from transformers import PreTrainedTokenizerFast


class Converter(TransformersConverter):
    def load_tokenizer(self, tokenizer_class: Any, model_name_or_path: str, **kwargs: Any) -> Any:
        file = str(Path(model_name_or_path) / "tokenizer.json")
        names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
        return PreTrainedTokenizerFast(tokenizer_file=file, **names)


if __name__ == "__main__":
    checkpoint, out, quantization = sys.argv[1:]
    Converter(checkpoint).convert(out, quantization=quantization)
