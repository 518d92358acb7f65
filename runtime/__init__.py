"""Loads a bundle and runs it: the standard library, numpy and, lazily, a vendor's own runtime."""
