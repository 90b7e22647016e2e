"""What a data set holds, what of it can go, and what is missing in it."""
