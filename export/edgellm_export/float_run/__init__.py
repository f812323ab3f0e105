"""The float model run in pieces, one layer in memory at a time, a file per kind of model."""
