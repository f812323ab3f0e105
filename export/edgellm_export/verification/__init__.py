"""A package compared with its original, a file per kind of model, and what may differ."""
