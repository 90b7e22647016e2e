"""A DVC project from Python: its stages, locks, stores and errors. Imports neither Dagster nor FLAME."""
