"""What a run will take before anything is spent: tokens, arithmetic, hours, storage, memory (`flame plan`)."""
