"""How a model is measured on the held-out split: retrieval, classification, intervals, results."""
