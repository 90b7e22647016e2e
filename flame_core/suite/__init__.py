"""The papers' benchmarks: their layouts on disk, their tasks, other people's models, and the results."""
