"""FLAME: pre-train image encoders against the embeddings of a frozen large language model."""
