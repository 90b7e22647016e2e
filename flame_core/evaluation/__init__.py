"""Evaluation on the held-out split: retrieval in several languages, zero-shot classification, the report."""
