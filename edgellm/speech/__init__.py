"""Whisper's way to write down speech: what a target begins with, rules for timestamps, recordings of any length.

All of it gives what transformers' `WhisperForConditionalGeneration.generate` gives.
"""
