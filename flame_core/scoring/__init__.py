"""Numbers per sample by models of the user's, and selections by them."""
