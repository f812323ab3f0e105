"""tokenizer.json from a bare vocabulary, for checkpoints that come without one: GGUF and SentencePiece files."""
