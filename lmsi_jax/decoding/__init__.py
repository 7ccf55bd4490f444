"""Many paths of one prompt: sampling, stop strings, the engine and its scheduler."""
