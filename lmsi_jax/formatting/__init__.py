"""From voted paths to training rows: the four formats and packing."""
