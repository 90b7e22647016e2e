"""Turns raw pairs into webdataset shards, and reads them."""
