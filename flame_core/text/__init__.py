"""A frozen LLM to facet embeddings on disk: facets, attention, the LLM, the encoder, the store."""
