"""An LLM that learns to embed captions before any are stored (LLM2CLIP): pairs, contrast, training, cost."""
