"""The supernet of a one-shot search: which paths there are, the layers that they share, and how these learn."""
