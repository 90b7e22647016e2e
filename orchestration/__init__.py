"""Dagster code location: every stage of `dvc.yaml` as an asset."""
