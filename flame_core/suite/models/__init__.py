"""Models that can be evaluated, ours and other people's, behind one protocol (`protocol.Model`)."""
