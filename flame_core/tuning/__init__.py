"""Small heads on features of frozen models: NMTune and its baselines, tested in their domain and beyond it."""
