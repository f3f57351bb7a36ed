"""Weights of networks: files read and written, the network they belong to, and those that travel with the package."""
