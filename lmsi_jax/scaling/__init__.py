"""Scaling laws: loss by parameters and tokens, coverage and votes by samples; their fits, with intervals."""
