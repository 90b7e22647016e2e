"""`flame serve`: a search page and its JSON interface, on this machine."""
