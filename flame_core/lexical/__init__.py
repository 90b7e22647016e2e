"""Words as a space: captions and pictures as weights of words of the LLM's vocabulary (LexVLA)."""

LEXICON, WORDS = LEXICON_FILES = ("lexicon.safetensors", "words.parquet")
