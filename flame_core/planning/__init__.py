"""What a run would cost before it starts: `flame plan` for all of params, `flame status` for the stages that would run."""
