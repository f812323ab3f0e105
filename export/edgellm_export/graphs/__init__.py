"""Whole graphs, a file per kind of model."""
