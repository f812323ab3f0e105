"""Text to tokens and back: tokenizer, encodings, prompts, chat templates and their sandbox."""
