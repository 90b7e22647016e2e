"""Pages for people: report, comparison, charts."""
