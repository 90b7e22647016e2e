"""Process trees that end in order, and what a process prints. Imports neither Dagster, DVC nor FLAME."""
