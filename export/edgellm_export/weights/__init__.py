"""Files of weights, one format each: tensors that are read by rows, and nothing in a file is ever executed."""
