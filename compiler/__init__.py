"""The driver: frontends, the pipeline of phases, hardware descriptions, the placement solver and the bundle writer."""
