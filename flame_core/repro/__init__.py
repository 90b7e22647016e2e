"""Bringing stages up to date with DVC, from a shell or from a step of Dagster, and stopping them in order."""
