"""Training: the loop, the order of samples, what a step does, what is trained, and what it costs."""
