"""What no placement can be better than."""
