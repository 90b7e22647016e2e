"""What docs/performance.md quotes: one runnable script a case, each printing a ratio that was measured in one run.

make bench        # CPU, minutes
make bench-gpu    # a GPU
"""
