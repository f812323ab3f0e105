"""Valid inputs to begin with, which `python -m fuzz.seeds` writes into the corpus and the parts beside them."""
