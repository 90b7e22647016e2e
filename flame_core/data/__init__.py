"""Raw pairs to webdataset shards, and shards to batches."""
