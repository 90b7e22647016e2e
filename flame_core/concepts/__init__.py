"""How often concepts occur in captions and pictures, what scores follow from that, and test sets of rare ones."""
