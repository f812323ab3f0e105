"""RoBERTa-PreLayerNorm (Ott et al., arXiv 1904.01038): RoBERTa with norms in front of its blocks."""

from __future__ import annotations

from edgellm_export.architectures.pre_norm import roberta_prelayernorm as parse

__all__ = ["parse"]
