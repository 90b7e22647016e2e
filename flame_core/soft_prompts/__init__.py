"""Soft prompts: vectors at the LLM's input that make the frozen LLM write a given caption (P-Former)."""
