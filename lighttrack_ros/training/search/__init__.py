"""LightTrack's one-shot architecture search over a trained supernet: the time of its paths, the evolution over them."""
