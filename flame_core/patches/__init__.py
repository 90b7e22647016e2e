"""What single patches of a picture mean: as words, and by similarity to facets."""
