"""The extras. They are not in pyproject.toml because edgellm-kernels comes from the folder beside this file where there
is one, and a path has no place there."""

from pathlib import Path

from setuptools import setup

FOLDER = Path(__file__).resolve().parent / "kernels"
KERNELS = f"edgellm-kernels @ {FOLDER.as_uri()}" if FOLDER.is_dir() else "edgellm-kernels"

setup(
    extras_require={
        "cpu": ["onnxruntime>=1.31", KERNELS],
        "cuda": ["onnxruntime-gpu>=1.31"],
        "export": [
            "onnx-ir>=1.1",
            "onnx>=1.19",
            "ml_dtypes>=0.5",
            "gguf>=0.17",
            "huggingface_hub>=0.30",
            "sentencepiece>=0.2",
            "rich>=13",
        ],
        # The only part that needs torch: --via optimum. optimum-onnx wants a transformers below 4.58.
        "optimum": ["optimum-onnx==0.1.0", "torch==2.13.0", "transformers==4.57.6"],
        "tf": ["h5py>=3.10"],
        "serve": [
            "starlette>=0.46",
            "uvicorn>=0.34",
            "msgspec>=0.19",
            "prometheus-client>=0.21",
            "python-multipart>=0.0.20",
        ],
        "audio": ["soundfile>=0.12", "soxr>=0.3"],
        "plot": ["matplotlib>=3.8"],
        "batch": ["pyarrow>=15", "msgspec>=0.19"],
        "ray": ["edgellm[batch,serve]", "ray[data,serve]>=2.60"],
        "eval": ["sacrebleu>=2.4", "rouge-score>=0.1.2"],
        "grammar": ["llguidance>=1.9"],
        "fuzz": ["atheris==3.0.0"],
        "dev": [
            "edgellm[audio,batch,cpu,eval,export,grammar,optimum,plot,ray,serve,tf]",
            "httpx>=0.28",
            "openai>=2",
            "playwright>=1.50",
            "safetensors>=0.5",
            "pytest>=8",
            "pytest-xdist>=3.8",
            "schemathesis>=4.32",
            "hypothesis>=6.100",
            "jsonschema>=4.20",
            "pydantic>=2.5",
            "scikit-learn>=1.5",
            "seqeval>=1.2.2",
            "ruff>=0.12",
            "mypy>=1.15",
        ],
    }
)
