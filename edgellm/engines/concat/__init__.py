"""Graphs of other exporters, whose cache grows by concatenation."""
