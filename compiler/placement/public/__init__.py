"""The public problem format of the NeurIPS 2020 placement benchmarks."""
