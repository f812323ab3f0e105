"""Graphs as values and as files: the builder and what it builds, the writer, the small graphs that move cache rows."""
