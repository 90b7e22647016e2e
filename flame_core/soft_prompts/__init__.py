"""Soft prompts: vectors at the LLM's input that make the frozen LLM write a given caption (P-Former)."""

WRITES = "writes"  # in a model's config: the LLM of its prompts, the template, the longest caption
RECORD = "captions.json"  # in the folder of a trained captioner: what it wrote about held-out pictures
