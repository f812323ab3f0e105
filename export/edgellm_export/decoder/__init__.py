"""Decoder-only models: graph, float run, comparison, export."""
