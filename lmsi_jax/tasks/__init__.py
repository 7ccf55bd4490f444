"""Questions, exemplars, prompts, and what a model's text says."""
