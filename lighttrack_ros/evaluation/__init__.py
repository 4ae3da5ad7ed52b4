"""Sequences, metrics, generated scenes, the demo: everything that measures."""
