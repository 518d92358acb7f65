"""What number formats lose: the rounding of each op emulated on the host, and how far the outputs move by it."""
