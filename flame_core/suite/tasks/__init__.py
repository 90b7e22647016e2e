"""What is asked of a model, one task a file: the texts it needs, and `measure`, which turns embeddings into scores."""
