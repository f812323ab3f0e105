"""Which model types edgellm takes, found by trying: `python benchmarks/coverage.py [TYPE ...] [--write]`.

For each type a tiny checkpoint of random weights, made by transformers 5 or, where that cannot, by 4.57; an export in
float32, compared with what that transformers gives (tokens, text, numbers); and, where the refusal names that way, the
same through optimum, which has 4.57. What a line may say:

- native, optimum: exported, and equal to transformers;
- refused: an error of ours, before any work, and nothing written;
- WRONG: exported, but not equal; LATE: refused after work had begun; CRASH: another error. None of these should be.

With --write the table goes into docs/coverage.md.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import edgellm_export
from edgellm.errors import EdgellmError
from edgellm_export.witness.comparison import compare
from edgellm_export.witness.process import Reader
from environments import ROOT, python_of

PAGE = ROOT / "docs" / "coverage.md"
MAKER = ROOT / "benchmarks" / "tiny_checkpoint.py"
NUMBERS = 1e-4  # relative: float32 in models of two small layers with large weights
TYPES = [
    "albert", "apertus", "arcee", "bamba", "bart", "bert", "big_bird", "bigbird_pegasus", "biogpt", "bitnet",
    "blenderbot", "blenderbot-small", "bloom", "camembert", "codegen", "cohere", "cohere2", "convbert", "ctrl",
    "data2vec-text", "deberta", "deberta-v2", "deepseek_v2", "deepseek_v3", "diffllama", "distilbert", "doge",
    "dots1", "electra", "ernie", "ernie4_5", "ernie4_5_moe", "esm", "eurobert", "exaone4", "falcon", "falcon_h1",
    "falcon_mamba", "flaubert", "flex_olmo", "fnet", "fsmt", "funnel", "gemma", "gemma2", "gemma3", "gemma3_text",
    "gemma3n_text", "glm", "glm4", "glm4_moe", "gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox", "gpt_neox_japanese",
    "gpt_oss", "gptj", "granite", "granitemoe", "granitemoehybrid", "granitemoeshared", "helium",
    "hunyuan_v1_dense", "hunyuan_v1_moe", "ibert", "idefics3", "internvl", "jamba", "jetmoe", "layoutlm", "led",
    "lfm2", "llama", "llava", "longformer", "longt5", "luke", "m2m_100", "mamba", "mamba2", "marian", "mbart",
    "megatron-bert", "ministral", "minimax", "mistral", "mistral3", "mixtral", "mobilebert", "modernbert",
    "modernbert-decoder", "moonshine", "mpnet", "mpt", "mt5", "mvp", "nemotron", "nomic_bert", "nystromformer",
    "olmo", "olmo2", "olmo3", "olmoe", "openai-gpt", "opt", "pegasus", "pegasus_x", "persimmon", "phi", "phi3",
    "phimoe", "plbart", "prophetnet", "qwen2", "qwen2_5_vl", "qwen2_moe", "qwen2_vl", "qwen3", "qwen3_moe",
    "qwen3_next", "qwen3_vl", "recurrent_gemma", "rembert", "roberta", "roberta-prelayernorm", "roc_bert",
    "roformer", "rwkv", "seed_oss", "smollm3", "smolvlm", "squeezebert", "stablelm", "starcoder2",
    "switch_transformers", "t5", "t5gemma", "umt5", "vaultgemma", "whisper", "xglm", "xlm", "xlm-roberta",
    "xlm-roberta-xl", "xlnet", "xmod", "yoso",
]  # fmt: skip


@dataclass(frozen=True)
class Line:
    """What was found of a type: `verdict`, and why it is not native."""

    model_type: str
    verdict: str
    reason: str = ""


@dataclass(frozen=True)
class Maker:
    """A version of transformers: what it makes of the types, a directory each or a file with why not, and reads."""

    checkpoints: Path
    reader: Reader

    @classmethod
    def of(cls, version: str, types: Sequence[str], room: Path) -> Maker:
        python = python_of(f"transformers-{version}")
        subprocess.run([python, str(MAKER), str(room / version), *types], check=True, stderr=subprocess.DEVNULL)
        return cls(room / version, Reader(python))

    def why_not(self, model_type: str) -> str | None:
        reason = self.checkpoints / f"{model_type}.txt"
        return reason.read_text(encoding="utf-8") if reason.is_file() else None


def tried(model_type: str, newer: Maker, older: Maker, out: Path) -> Line:
    maker = newer if newer.why_not(model_type) is None else older
    if (why := maker.why_not(model_type)) is not None:
        return Line(model_type, "not tried", why)
    line = exported(model_type, maker, out)
    if line.verdict != "refused" or "OUT --via optimum" not in line.reason:
        return line
    return exported(model_type, older if older.why_not(model_type) is None else maker, out, via="optimum")


def exported(model_type: str, maker: Maker, out: Path, via: Literal["optimum"] | None = None) -> Line:
    source, steps = maker.checkpoints / model_type, []
    shutil.rmtree(out, ignore_errors=True)
    try:
        made = edgellm_export.export(
            source, out, precision="fp32", via=via, verify_quality=False, calibrate=False,
            progress=lambda step, *_: steps.append(step),
        )  # fmt: skip
        if made.manifest.task == "automatic-speech-recognition":
            return Line(model_type, "native", "compared with transformers by tests/e2e/speech alone")
        findings = compare(made.path, str(source), maker.reader)
    except EdgellmError as error:
        return Line(model_type, "LATE" if steps or out.exists() else "refused", str(error))
    except Exception as error:
        return Line(model_type, "CRASH", f"{type(error).__name__}: {error}")
    wrong = [f"{check.name}: {check.line}" for check in findings.differing]
    wrong += [f"{check.name} {check.error:.1e}" for check in findings.checks if (check.error or 0) > NUMBERS]
    return Line(model_type, "WRONG", "; ".join(wrong)) if wrong else Line(model_type, via or "native")


def all_lines(types: Sequence[str]) -> Iterator[Line]:
    with tempfile.TemporaryDirectory() as room:
        newer, older = (Maker.of(version, types, Path(room)) for version in ("5", "4"))
        with newer.reader, older.reader:
            for model_type in types:
                line = tried(model_type, newer, older, Path(room) / "package")
                reason = " ".join(line.reason.replace(f"{room}/", "").split())
                print(f"{model_type:24} {line.verdict:10} {reason[:160]}", file=sys.stderr, flush=True)
                yield Line(model_type, line.verdict, reason)


def page(lines: Sequence[Line]) -> str:
    counts = Counter(line.verdict for line in lines)
    summary = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
    rows = [f"| `{line.model_type}` | {line.verdict} | {cell(line.reason)} |" for line in lines]
    head = [
        "# What was tried", "",
        "Made by `python benchmarks/coverage.py --write`: a tiny checkpoint of each model type, exported in float32",
        "and compared with the transformers that made it: tokens, text, numbers.", "",
        f"Of {len(lines)}: {summary}.", "", "| model type | | why it is not native |", "|---|---|---|",
    ]  # fmt: skip
    return "\n".join([*head, *rows, ""])


def cell(reason: str) -> str:
    return reason.replace("|", "\\|").replace("<", "&lt;")[:240]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("types", nargs="*", metavar="TYPE", help="default: all")
    parser.add_argument("--write", action="store_true", help="put the table into docs/coverage.md")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    lines = list(all_lines(arguments.types or TYPES))
    if arguments.write:
        PAGE.write_text(page(lines), encoding="utf-8")
    print(json.dumps(Counter(line.verdict for line in lines)))
    return 1 if any(line.verdict.isupper() for line in lines) else 0


if __name__ == "__main__":
    sys.exit(main())
