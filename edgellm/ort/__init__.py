"""The only importer of ONNX Runtime: sessions, bindings, forks, the end of the process."""
