"""Encoder-decoders: the two graphs, float run, comparison, export."""
