"""The SRAM accelerator at run time: its program, the emulator that executes it, and the model of its cycles."""
