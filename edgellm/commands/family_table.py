"""`edgellm export --families`: what the exporter builds, as lines."""

from __future__ import annotations

from collections.abc import Iterator


def family_lines() -> Iterator[str]:
    """Imports the exporter."""
    from edgellm_export.architectures.catalog import entries, through_optimum

    natives = list(entries())
    width = max(len(entry.model_type) for entry in natives)
    for entry in natives:
        gguf = f"  (GGUF: {', '.join(entry.gguf)})" if entry.gguf else ""
        more = "  (its text model)" if entry.has_more else ""
        yield f"{entry.kind:16} {entry.model_type:{width}} {entry.checkpoints}{more}{gguf}"
    yield ""
    yield f"{len(natives)} model types are built natively. With --via optimum, and PyTorch, also:"
    yield ", ".join(through_optimum())
