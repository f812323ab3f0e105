"""The package's other files, and the directory that appears whole or not at all."""
