"""From an open checkpoint to a package's files, a recipe per kind of model."""
