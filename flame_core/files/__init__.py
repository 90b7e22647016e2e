"""Forms of files that several stages write and read: single rows of a store, int8 rows, tables, trained weights."""
