"""Pictures from lists of addresses: the list, requests, what became of each address, and the pictures in tars."""
