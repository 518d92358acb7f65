"""The commands: thin mains over the compiler and the runtime."""
