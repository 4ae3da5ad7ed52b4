"""Training and distillation: data, losses, loops. Needs the extra `train`."""
