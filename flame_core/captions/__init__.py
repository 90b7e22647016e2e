"""Captions of a shard: the source's raw captions, and short and long ones written by captioners."""
