"""Engines whose graphs write into the spare room of a cache that stays where it is."""
