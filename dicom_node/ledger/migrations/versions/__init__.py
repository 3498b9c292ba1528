"""Adapter: one script per change of the ledger's schema."""
