"""PyTorch definitions and checkpoint import: for import, export and training only, never on the robot."""
