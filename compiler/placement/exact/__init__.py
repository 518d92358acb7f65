"""The exact model for CP-SAT."""
