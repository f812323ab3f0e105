"""What families are made of: attention, feed-forward layers, norms, rotary embeddings, channels."""
