"""Model parameters and training state on disk."""
