"""Models that can be evaluated, ours and other people's, with one interface (`model.Model`)."""
