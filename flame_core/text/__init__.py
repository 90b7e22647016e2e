"""From captions and a frozen LLM to embeddings on disk: facets, attention, the LLM, the encoder, the store."""
