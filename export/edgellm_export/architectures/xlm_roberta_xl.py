"""XLM-RoBERTa-XL (Goyal et al., arXiv 2105.00572): RoBERTa with norms in front of its blocks."""

from __future__ import annotations

from edgellm_export.architectures.pre_norm import xlm_roberta_xl as parse

__all__ = ["parse"]
