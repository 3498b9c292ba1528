"""Adapter: Alembic's environment and the scripts of the ledger's schema."""
