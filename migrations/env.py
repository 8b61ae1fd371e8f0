"""What alembic runs: the pending revisions, on the connection of :mod:`autotune.store.schema`.

The caller has begun the transaction, foreign keys off, and commits or rolls back the whole.
"""

from __future__ import annotations

from alembic import context

from autotune.store.schema import VERSION_TABLE
from autotune.store.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table=VERSION_TABLE,
    render_as_batch=True,
)
context.run_migrations()
