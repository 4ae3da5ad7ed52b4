"""The tracking algorithms: one file a tracker, one way to make one."""
