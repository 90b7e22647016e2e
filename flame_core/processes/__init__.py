"""Work of several threads, processes, machines or GPUs: engines for units, launchers, ranks of a training."""
