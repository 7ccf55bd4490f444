"""Reading the answer of a sampled path: types, equivalence, and reasons to abstain. It needs no JAX."""
