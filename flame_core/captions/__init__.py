"""Captions of a shard: the source's raw ones, and short and long ones that a captioner writes."""
