"""Megatron-BERT (Shoeybi et al., arXiv 1909.08053): BERT with norms in front of its blocks."""

from __future__ import annotations

from edgellm_export.architectures.pre_norm import megatron_bert as parse

__all__ = ["parse"]
