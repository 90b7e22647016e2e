"""Captions of pictures: a tower's connector makes prompts, and the frozen LLM writes behind them (P-Former)."""

RECORD = "captions.json"  # of a captioner's folder: what it wrote about held-out pictures
