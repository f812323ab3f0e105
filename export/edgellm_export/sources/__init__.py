"""From what the user typed to an open checkpoint: a directory, a .gguf file, or a hub id."""
