"""What ops cost on a device, and who says so: the roofline, a measurement on this machine, or a vendor's tables."""
