"""The alignment probe: which LLM, at which layer, fits which tower, from a small linear map on stored vectors."""
