"""Optimiser, step and loop, for pre-training and fine-tuning alike."""
