"""Good placements found quickly, and how they are made better."""
