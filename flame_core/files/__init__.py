"""Files as several stages write and read them: whole or not at all, single rows of a store, int8, tables, weights."""
