"""Encoder-only models: graph, heads, pooling, float run, comparison, export."""
