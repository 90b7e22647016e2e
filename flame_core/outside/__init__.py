"""What stages read from this machine that lies outside of the project, and whether it has changed since."""
