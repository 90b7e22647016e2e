"""Patches of pictures as codes of a codebook."""
