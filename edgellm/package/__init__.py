"""The contract between exporter and runtime: manifest, files and their hashes, graphs read without onnx."""
