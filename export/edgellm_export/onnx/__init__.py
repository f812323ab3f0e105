"""Graphs as values and as files: the builder, built graphs, the writer, the small graphs that move cache rows."""
