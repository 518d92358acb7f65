"""What compiler engineers work with: an index of IR for editors, and a reducer of IR that fails."""
