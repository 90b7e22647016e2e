"""The measurements in docs/performance.md: one runnable script per subject, which prints ratios measured in one run.

Run them with:

    make bench        # CPU, minutes
    make bench-gpu    # a GPU
"""
