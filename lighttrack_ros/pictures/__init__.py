"""Everything drawn: the target on a frame, plots, the contact sheet."""
