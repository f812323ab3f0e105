"""The only importer of ONNX Runtime: loaded graphs, bindings, forks, the end of the process."""
