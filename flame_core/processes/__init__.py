"""Work in several threads, processes, machines or GPUs: engines for units of work, launchers and ranks of a training."""
