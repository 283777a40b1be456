"""The network, its loss, and its layers."""
