"""The optimiser, the training step and the training loop, for pre-training and fine-tuning."""
