"""A computation graph, built while numbers are computed, and the chain rule walked backwards through it."""
