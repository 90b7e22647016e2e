"""Training: the loop, its order of samples, its schedule, its checkpoints."""
