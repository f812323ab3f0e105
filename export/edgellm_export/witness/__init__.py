"""An independent witness: transformers itself reads the checkpoint, and the package is compared with that."""
