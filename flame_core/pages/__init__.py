"""What people look at: report, comparison, charts."""
