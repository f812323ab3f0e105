"""A graph and its key/value cache as a search sees them: tokens in, logits out."""
