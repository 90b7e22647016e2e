"""What a run would cost: `flame plan` for all of params, `flame status` for the stages that would run."""
