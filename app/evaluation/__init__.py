"""How good the recommendations are: measured on a user's own data, or on public formats."""
