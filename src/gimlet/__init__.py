"""gimlet-compile: one workload over many vendors' silicon."""
