"""Metrics and protocols: one-pass accuracy, sessions with absence, exits, latency statistics; the baselines."""
