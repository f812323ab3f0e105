"""Graphs that optimum exports, or that are there already: their weights rounded, compared with the original."""
