"""What callers hold: a loaded package of each kind."""
