"""What trainings that count in steps have in common: checkpoints, the learning rate, random numbers, their frame."""
