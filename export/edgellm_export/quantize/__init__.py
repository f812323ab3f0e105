"""A table of precisions, each a way to store and to multiply weights."""

from edgellm_export.quantize.schemes import FloatScheme, IntegerScheme, WeightScheme, four_bits, scheme_for

__all__ = ["FloatScheme", "IntegerScheme", "WeightScheme", "four_bits", "scheme_for"]
