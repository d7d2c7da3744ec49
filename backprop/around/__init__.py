"""What makes an equation a part of a network, once for all layers: calls from outside, its arrays, what is inside what."""
