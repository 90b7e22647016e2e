"""Training: the loop, the order of samples, the learning rate schedule, checkpoints."""
