"""Clusters of the training captions: vectors, reduction, spherical k-means, and the files that hold the result."""
