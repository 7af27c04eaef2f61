"""Endpoints: their addresses, what they refuse, and what is learned from it."""
