"""The image side: a timm backbone and the projector into the LLM's space."""
