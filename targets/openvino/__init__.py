"""Models for OpenVINO on the CPU, over the weights file that the whole bundle shares."""
