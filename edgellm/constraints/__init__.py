"""Constraints by llguidance: JSON schemas, regular expressions and grammars as tokens that may come next."""

from edgellm.constraints.compiler import Constraints

__all__ = ["Constraints"]
