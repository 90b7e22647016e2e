"""Which samples a training needs: clusters of coded pictures, budgets, semantic duplicates."""
