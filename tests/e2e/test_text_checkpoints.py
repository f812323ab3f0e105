"""What is compared with transformers is the same in every run: a difference that one run shows, all show."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys, text_checkpoints as made, transformers as hf
tokenizers = [made.word_pieces(hf.BertTokenizerFast), made.byte_pairs()]
print([tokenizer.backend_tokenizer.to_str() for tokenizer in tokenizers])
print(made.unigrams(["<pad>", "</s>", "<unk>"], "</s>").to_str())
"""


def test_the_tokenizers_of_two_processes_are_equal() -> None:
    path = "\n".join(["import sys", f"sys.path[:0] = {sys.path!r}", PROGRAM])
    one, other = (subprocess.run([sys.executable, "-c", path], capture_output=True, check=True) for _ in range(2))
    assert one.stdout == other.stdout
    assert len(one.stdout) > 10_000
