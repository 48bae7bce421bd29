"""What a run leaves for people: summary, tables, figures, and trajectories turn by turn."""
