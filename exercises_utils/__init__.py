"""What the exercise notebooks import: models, circuits, checks, figures."""
