"""What single patches of a picture mean, in words and in likeness to facets."""
