"""Captions of pictures: a tower's connector makes prompts, and the frozen LLM writes behind them (P-Former)."""
