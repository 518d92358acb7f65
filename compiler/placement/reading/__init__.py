"""From the IR and its topology to a placement problem."""
