"""Files of a bucket (S3, Google Cloud Storage), copied to this machine before they are read."""
