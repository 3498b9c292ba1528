"""Turns pixels into findings; no network."""
