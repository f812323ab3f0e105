"""A table of precisions, each a way to store and to multiply weights."""

from edgellm_export.quantize.schemes import BlockScheme, FloatScheme, WeightScheme, scheme_for

__all__ = ["BlockScheme", "FloatScheme", "WeightScheme", "scheme_for"]
