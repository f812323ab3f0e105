"""Optimum's ONNX exporter, the one place that needs torch and transformers: a checkpoint becomes graphs, and computes
what they are compared with."""

from __future__ import annotations

import contextlib
import inspect
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edgellm.errors import EdgellmError, ExportError, MissingDependencyError, UnsupportedModelError
from edgellm.package.manifest import GENERATION_TASKS, Task
from edgellm.text.encodings import Encoding
from edgellm.types import FloatArray, TokenArray

# By the end of the name of the class in config.json, the first that fits.
TASKS: Mapping[str, Task] = {
    "XLMWithLMHeadModel": "fill-mask",
    "FlaubertWithLMHeadModel": "fill-mask",
    "T5WithLMHeadModel": "text2text-generation",
    "ForCausalLM": "text-generation",
    "LMHeadModel": "text-generation",
    "ForConditionalGeneration": "text2text-generation",
    "MTModel": "text2text-generation",
    "ForMaskedLM": "fill-mask",
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
    "Model": "feature-extraction",
}
# Whose graphs would be wrong, which shows in none of their inputs, or would not run.
REFUSED = {
    "deepseek_v3": "keys and values of different sizes in its cache",
    "longformer": "attention in windows of a text that is padded to their multiples, and optimum's graph of it holds "
    "for one length",
}
PACKAGES = ("optimum-onnx", "optimum", "torch", "transformers")


def task_of(config: Mapping[str, Any]) -> Task:
    """The task that the checkpoint's class is for. Raises UnsupportedModelError where it does not say."""
    names = config.get("architectures")
    name = str(names[0]) if isinstance(names, list) and names else ""
    found = next((task for end, task in TASKS.items() if name.endswith(end)), None)
    if found is None:
        raise UnsupportedModelError(
            f"config.json: architectures is {names!r}, which does not say what the model is for; say it with --task"
        )
    return found


def check_exported(config: Mapping[str, Any]) -> None:
    """Raises UnsupportedModelError for families whose graphs would be wrong, before any work is done."""
    model_type = str(config.get("model_type"))
    if model_type in REFUSED:
        raise UnsupportedModelError(f"{model_type} has {REFUSED[model_type]}; edgellm runs no such model")


def export_graphs(checkpoint: Path, out: Path, task: Task) -> None:
    """Write the ONNX graphs of the directory `checkpoint` to the directory `out`, in float32.

    Raises MissingDependencyError, or UnsupportedModelError for what optimum does not export.
    """
    with _quiet():
        exporter = _import_exporter()
        past = "-with-past" if task in GENERATION_TASKS else ""
        with _explained("export"):
            # The library is named: finding it out might mean running what else lies in the directory.
            exporter(
                str(checkpoint), str(out), task=task + past, framework="pt", library_name="transformers",
                do_validation=False, local_files_only=True, trust_remote_code=False,
            )  # fmt: skip


class TorchOriginal:
    """The checkpoint in torch, float32."""

    def __init__(self, checkpoint: Path, task: Task) -> None:
        with _quiet(), _explained("load"):
            import torch
            import transformers

            classes = {
                "text-generation": transformers.AutoModelForCausalLM,
                "text2text-generation": transformers.AutoModelForSeq2SeqLM,
                "fill-mask": transformers.AutoModelForMaskedLM,
                "text-classification": transformers.AutoModelForSequenceClassification,
                "token-classification": transformers.AutoModelForTokenClassification,
                "question-answering": transformers.AutoModelForQuestionAnswering,
                "feature-extraction": transformers.AutoModel,
            }
            self._torch = torch
            self._model = classes[task].from_pretrained(
                checkpoint, dtype=torch.float32, local_files_only=True, trust_remote_code=False
            )
            self._model.eval()

    def logits(self, tokens: TokenArray, source: TokenArray | None = None) -> FloatArray:
        """Logits [length, vocab] behind each of tokens [length], which are a target where there is a source."""
        ids = self._torch.tensor(tokens[None])
        inputs = {"input_ids": ids}
        if source is not None:
            inputs = {"input_ids": self._torch.tensor(source[None]), "decoder_input_ids": ids}
        with _quiet(), self._torch.no_grad():
            logits: FloatArray = self._model(**inputs).logits[0].float().numpy()
        return logits

    def outputs(self, encoding: Encoding) -> dict[str, FloatArray]:
        """An encoder's outputs by name, arrays without a batch's dimension."""
        arrays = {"input_ids": encoding.ids, "token_type_ids": encoding.type_ids}
        accepted = inspect.signature(self._model.forward).parameters
        inputs = {name: self._torch.tensor(array[None]) for name, array in arrays.items() if name in accepted}
        with _quiet(), self._torch.no_grad():
            found = self._model(**inputs)
        return {name: value[0].float().numpy() for name, value in found.items() if self._torch.is_tensor(value)}


def check_installed() -> None:
    """Raises MissingDependencyError before any work is done."""
    with _quiet():
        _import_exporter()


def _import_exporter() -> Any:
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"  # read when huggingface_hub is imported
    try:
        from optimum.exporters.onnx import main_export
    except ImportError as error:
        raise MissingDependencyError(
            f"--via optimum needs packages that are not installed ({error}); run `pip install edgellm[export,optimum]`"
        ) from error
    return main_export


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences torch's tracer, which warns dozens of times in an export, and the libraries' log."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextlib.contextmanager
def _explained(verb: str) -> Iterator[None]:
    try:
        yield
    except (EdgellmError, MemoryError):
        raise
    except OSError as error:
        raise ExportError(f"optimum could not {verb} this checkpoint: {_first_line(error)}") from error
    except Exception as error:  # optimum, transformers and torch raise what they like
        raise UnsupportedModelError(f"optimum does not {verb} this checkpoint: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
