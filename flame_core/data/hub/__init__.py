"""Data sets of the Hugging Face hub: their files, pinned to a commit and verified."""
