"""The transformer. Its main functions are `transformer.abstract`, `transformer.init` and `transformer.forward`."""
