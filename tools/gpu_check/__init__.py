"""The parts of tools/gpu-check: its steps, what they run, and how libraries get to a machine in pieces."""
