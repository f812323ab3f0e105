"""Sound: samples of a file, and the spectrogram that an encoder of speech reads."""
