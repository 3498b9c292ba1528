"""Adapter: what Alembic runs; uses the connection that ``migration.migrate`` hands over."""

from alembic import context
from sqlalchemy import Connection

from dicom_node.ledger.schema import metadata

connection = context.config.attributes["connection"]
assert isinstance(connection, Connection)
# The caller's transaction holds the lock and commits.
context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
context.run_migrations()
