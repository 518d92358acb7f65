"""The placement problem as data, its rules and its referee: what may run where, and what a placement takes."""
