"""The page on which an operator points at a target and watches it: its server, and where its pictures come from."""
