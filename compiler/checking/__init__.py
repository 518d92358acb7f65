"""Checking a bundle by its numbers: against the source model, segment by segment and op by op."""
